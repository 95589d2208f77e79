import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Schema from "effect/Schema"
import { makePictures, renderPage } from "../../../examples/sample-site/pages.ts"
import * as Extract from "../../../src/crawl/Extract.ts"
import { heldMax } from "../../../src/crawl/Skim.ts"
import * as Limits from "../../../src/Limits.ts"

const page = new URL("http://site.test/dir/page.html")
const extract = (html: string) => Extract.extract(html, page)
const links = (html: string) => extract(html).links.map((url) => url.replace("http://site.test", ""))
const images = (html: string) => extract(html).images.map((url) => url.replace("http://site.test", ""))

const sample = renderPage(7, "http://site.test", makePictures())
const hard = `<!DOCTYPE html><html><head><title>A &amp; B
 c</title><base href="/base/"><base href="/second/"><link rel="Shortcut ICON" href=fav.ico>
<link rel=stylesheet href=x.css><link rel="apple-touch-icon" href=touch.png></head><body>
<a href=one.html>1</a><A HREF='two.html#frag'>2</A><a/href=three.html>3</a><a href="?a=1&copy=2&amp;b=3">4</a>
<a href="four.html" href="five.html">dup</a><a
 href = "six
.html">6</a><area href=seven.html><iframe src=eight.html><a href=in-iframe></iframe><frame src=nine.html>
<!-- <a href=comment1> --><!--><a href=ten.html></a><!-- x --!><a href=eleven.html></a>
<? <a href=pi> ?><![CDATA[ <a href=cdata> ]]>
<script>"<a href=script1>"</script><style><a href=style1></style><textarea><a href=ta></textarea>
<xmp><a href=xmp1></xmp><noembed><a href=ne></noembed>
<template><a href=tpl><img src=tpl.png></div></body><a href=tpl2></template>
<noscript><a href=nos><img src=nos.png></noscript>
<img src=a.png srcset="b.png 1x, c,d.png 2x"><picture><source srcset="e.png 100w, f.png 200w"><img src=a.png></picture>
<image src=image.png><img src=""><img src="data:image/png;base64,AAAA"><img src=javascript:1>
<a href=mailto:x@y>m</a><a href=" twelve.html ">12</a><a href="http://user:pw@other.test/x">13</a>
<svg><a href=thirteen.html></a><title>not the title</title></svg><a href=one.html#again>dup</a><a href="x\0y">nul</a>
<plaintext><a href=plain>`

describe("Extract", () => {
  it("reads the hard page", () => {
    const result = extract(hard)
    assert.deepStrictEqual(result, {
      title: "A & B c",
      dropped: 0,
      links: [
        ...["one.html", "two.html", "three.html", "?a=1&copy=2&b=3", "four.html", "six.html", "seven.html"],
        ...["eight.html", "nine.html", "ten.html", "eleven.html", "twelve.html", "OTHER", "thirteen.html"],
        "x%EF%BF%BDy"
      ].map((path) => (path === "OTHER" ? "http://other.test/x" : `http://site.test/base/${path}`)),
      images: ["fav.ico", "touch.png", "nos.png", "a.png", "b.png", "c,d.png", "e.png", "f.png", "image.png"].map(
        (path) => `http://site.test/base/${path}`
      )
    })
  })

  const cuts = Arbitrary.array(Arbitrary.map(Arbitrary.schema(Schema.Int), Math.abs), { maxLength: 12 })
  it.prop("does not depend on how the text is split", [cuts], ([points]) => {
    for (const html of [hard, sample]) {
      const extractor = Extract.make(page)
      const at = [0, ...points.map((point) => point % html.length).sort((a, b) => a - b), html.length]
      for (let i = 1; i < at.length; i++) extractor.write(html.slice(at[i - 1], at[i]))
      assert.deepStrictEqual(extractor.end(), extract(html))
    }
  })

  const pieces = [
    `<a href=one>|<A HREF='two'>|<a href="three>x" id=y>|<a/href=four>|<a href=>|</a>|<a href=five|<area href=six>|<base href=/b/>`,
    `<img src=i.png>|<image src=j.png>|<source srcset='k.png 1x'>|<link rel=icon href=l.png>|<frame src=seven>|<plaintext>`,
    `<iframe src=eight>|</iframe>|<noembed>|</noembed>|<noscript>|</noscript>|<template>|</template>|<xmp>|</xmp>`,
    `<svg>|</svg>|<SVG/>|<math>|</math>|<desc>|</desc>|<foreignObject>|</foreignObject>|<mi>|<annotation-xml>|</annotation-xml>`,
    `<svg><title>no</title>|<svg><style>a{}</style>|<title>|</title>|<title/>|</TITLE>|<titlex>|<svg><!-- > -->`,
    `<script>|</script>|<script/>|</script |<scripts>|</ScRiPt>|<style>|</style>|<textarea>|</textarea>|<script></SCRIPT>`,
    `<!--|-->|--!>|<!-->|<!--->|<!-|<!|<![CDATA[|]]>|<?|?>|<!doctype html>|<!-- --!>|<!-- > -->`,
    `>|<|</|</ |</3|<3|/>|=|'|"|&amp;|&quot| |\n|\0|é|text|-|!`,
    `<div class="a>b">|<div a='|<p =">|<b/c=d>|x="<a href=nine>"|<br>|</br>|</p>|<tr>|<body>`
  ].flatMap((line) => line.split("|"))
  const tags = Arbitrary.array(Arbitrary.schema(Schema.Literals(pieces)), { maxLength: 30 })
  it.prop(
    "gives what the whole page gives, however it is written and split",
    [tags, cuts],
    ([some, points]) => {
      // What is cut off at the end of a page its parser takes for this or that, depending on how it was split.
      const html = `${some.join("")}'"><a href=last>'">`
      const extractor = Extract.make(page)
      const at = [0, ...points.map((point) => point % html.length).sort((a, b) => a - b), html.length]
      for (let i = 1; i < at.length; i++) extractor.write(html.slice(at[i - 1], at[i]))
      const whole = Extract.extract(html, page, { whole: true })
      assert.deepStrictEqual(extract(html), whole)
      assert.deepStrictEqual(extractor.end(), whole)
    },
    { timeout: 30_000, arbitrary: { runs: 2_000 } }
  )

  it("reads what follows a tag that is longer than is kept", () => {
    const extractor = Extract.make(page)
    for (const html of ["<a href=x>", `<p title="${"x".repeat(heldMax)}`, "<a href=no>", '"><a href=y>', "<p>z</p>"])
      extractor.write(html)
    assert.deepStrictEqual(extractor.end().links, ["http://site.test/dir/x", "http://site.test/dir/y"])
  })

  it("gives the same result one character at a time", () => {
    const extractor = Extract.make(page)
    for (const char of hard) extractor.write(char)
    assert.deepStrictEqual(extractor.end(), extract(hard))
  })

  it("takes the first base wherever it stands", () => {
    assert.deepStrictEqual(links("<a href=x></a><p>…</p><base href=/late/>"), ["/late/x"])
    assert.deepStrictEqual(links("<base target=_top><base href=/b/><a href=x>"), ["/b/x"])
  })

  it.each(["data:,x", "javascript:1", "http://[", "http://"])("ignores the base %s", (base) => {
    assert.deepStrictEqual(links(`<base href="${base}"><base href=/second/><a href=x>`), ["/dir/x"])
  })

  it("ignores a base inside of a template or a noscript", () => {
    assert.deepStrictEqual(links("<template><base href=/t/></template><a href=x>"), ["/dir/x"])
    assert.deepStrictEqual(links("<noscript><base href=/n/></noscript><a href=x>"), ["/dir/x"])
  })

  it("keeps a link to the page itself and drops the fragment", () => {
    assert.deepStrictEqual(links('<a href=""></a><a href="#top"></a>'), ["/dir/page.html"])
  })

  it("survives what is not closed", () => {
    assert.deepStrictEqual(links('<a href=x></a><a href="y'), ["/dir/x"])
    assert.deepStrictEqual(links("<a href=x></a><!-- <a href=y>"), ["/dir/x"])
    assert.deepStrictEqual(links("<a href=x></a><script><a href=y>"), ["/dir/x"])
    assert.deepStrictEqual(links("<div><p><b><a href=x></i></div></div></span><a href=y"), ["/dir/x"])
    assert.deepStrictEqual(extract(""), { links: [], images: [], dropped: 0 })
  })

  it("reads icons by rel token", () => {
    assert.deepStrictEqual(images("<link rel=iconic href=a><link rel='alternate icon' href=b><link href=c>"), [
      "/dir/b"
    ])
  })

  it("counts what is above the cap and keeps page order", () => {
    const anchors = (count: number) => Array.from({ length: count }, (_, i) => `<a href=/${i}></a>`).join("")
    const max = Limits.linksPerPageMax
    for (const [count, dropped] of [
      [max - 1, 0],
      [max, 0],
      [max + 1, 1],
      [max * 3, max * 2]
    ] as const) {
      const result = extract(anchors(count))
      assert.strictEqual(result.links.length, Math.min(count, max))
      assert.strictEqual(result.dropped, dropped)
    }
    const mixed = extract(`<img src=/i.png>${anchors(max)}<img src=/late.png>`)
    assert.deepStrictEqual([mixed.images.length, mixed.links.length, mixed.dropped], [1, max - 1, 2])
  })

  it("stays bounded with 100 000 links, and does not count a repeated one", () => {
    const result = extract(Array.from({ length: 100_000 }, (_, i) => `<a href=/${i}></a><a href=/same></a>`).join(""))
    assert.strictEqual(result.links.length, Limits.linksPerPageMax)
    assert.strictEqual(result.dropped, 100_001 - Limits.linksPerPageMax)
  })

  it.each(["<b>", "<template>", "<svg>", "<svg><foreignObject>", "</i>", "<a href=x y", "<form>", "<p><table>"])(
    "is not slowed down by a page of %s",
    (tag) => {
      const extractor = Extract.make(page)
      const chunk = tag.repeat(10_000)
      for (let size = 0; size < 4_000_000; size += chunk.length) extractor.write(chunk)
      assert.isAtMost(extractor.end().links.length, 1)
    }
  )

  it("stops at a nesting that only an attack has, and says so", () => {
    const nested = (depth: number) => extract(`${"<template>".repeat(depth)}${"</template>".repeat(depth)}<a href=x>`)
    assert.deepStrictEqual([nested(Extract.nestingMax).links.length, nested(Extract.nestingMax).dropped], [1, 0])
    assert.deepStrictEqual(
      [nested(Extract.nestingMax + 1).links.length, nested(Extract.nestingMax + 1).dropped],
      [0, 1]
    )
  })
})
