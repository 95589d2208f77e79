import { assert, describe, it } from "@effect/vitest"
import * as Url from "../../../src/crawl/Url.ts"
import * as Limits from "../../../src/Limits.ts"

const base = "http://site.test/a/b.html?q=1"
const href = (text: string) => Url.parse(text, base)?.href

describe("Url.parse", () => {
  it.each([
    { text: "//other.test/x", expected: "http://other.test/x" },
    { text: "?q", expected: "http://site.test/a/b.html?q" },
    { text: "#x", expected: "http://site.test/a/b.html?q=1#x" },
    { text: "", expected: "http://site.test/a/b.html?q=1" },
    { text: "\\c\\d", expected: "http://site.test/c/d" },
    { text: " x\n/\ty ", expected: "http://site.test/a/x/y" },
    { text: "http:c", expected: "http://site.test/a/c" },
    { text: "x/%2e%2e/y", expected: "http://site.test/a/y" },
    { text: "http://BÜCHER.test/", expected: "http://xn--bcher-kva.test/" },
    { text: "http://user:secret@site.test/", expected: "http://site.test/" },
    { text: "http://2130706433/", expected: "http://127.0.0.1/" }
  ])("resolves $text as a browser does", ({ expected, text }) => {
    assert.strictEqual(href(text), expected)
  })

  it.each(["mailto:a@b", "javascript:1", "data:,x", "ftp://site.test/", "file:///etc", "http://", "http://[1"])(
    "refuses %s",
    (text) => {
      assert.isUndefined(Url.parse(text, base))
    }
  )

  it("takes a URL of the largest length and refuses one more", () => {
    const start = "http://site.test/"
    const longest = start + "x".repeat(Limits.urlCharsMax - start.length)
    assert.isDefined(Url.parse(longest.slice(0, -1)))
    assert.strictEqual(Url.parse(longest)?.href.length, Limits.urlCharsMax)
    assert.isUndefined(Url.parse(`${longest}x`))
  })
})

describe("Url.key", () => {
  it.each([
    { text: "http://SITE.test:80/a#x", expected: "http://site.test/a" },
    { text: "http://site.test/%7euser/%e3%83%84", expected: "http://site.test/~user/%E3%83%84" },
    { text: "http://site.test/a?", expected: "http://site.test/a" },
    { text: "http://site.test/a?#", expected: "http://site.test/a" },
    { text: "http://site.test/%2F%62", expected: "http://site.test/%2Fb" },
    { text: "http://site.test/?b=%7e&a=%2f", expected: "http://site.test/?b=~&a=%2F" },
    { text: "http://site.test/%zz%4", expected: "http://site.test/%zz%4" },
    { text: "http://site.test/%%41a%7e", expected: "http://site.test/%%41a%7E" },
    { text: "http://site.test/%%34%31", expected: "http://site.test/%%34%31" },
    { text: "http://site.test:8080/", expected: "http://site.test:8080/" }
  ])("of $text", ({ expected, text }) => {
    const key = Url.key(Url.parse(text)!)
    assert.strictEqual(key, expected)
    assert.strictEqual(Url.key(Url.parse(key)!), key)
  })

  it("keeps apart what a server may keep apart", () => {
    const keys = ["http://s.test/a", "http://s.test/a/", "http://s.test/A", "https://s.test/a", "http://s.test/a?b"]
    assert.strictEqual(new Set(keys.map((text) => Url.key(Url.parse(text)!))).size, keys.length)
  })
})

describe("Url.inScope", () => {
  const url = (text: string) => new URL(text)

  it("is the host of the start URL by default", () => {
    const scope = Url.scopeOf(url("http://site.test:8080/start"))
    assert.isTrue(Url.inScope(url("http://site.test:8080/x"), scope))
    assert.isTrue(Url.inScope(url("https://site.test:8080/x"), scope))
    assert.isFalse(Url.inScope(url("http://site.test/x"), scope))
    assert.isFalse(Url.inScope(url("http://www.site.test:8080/x"), scope))
  })

  it("lists origins apart from hosts", () => {
    const scope = { hosts: ["a.test"], origins: ["https://b.test"] }
    assert.isTrue(Url.inScope(url("http://a.test/"), scope))
    assert.isTrue(Url.inScope(url("https://b.test/"), scope))
    assert.isFalse(Url.inScope(url("http://b.test/"), scope))
    assert.isFalse(Url.inScope(url("http://a.test/"), {}))
  })

  it("refuses traps", () => {
    const trap = (path: string) => Url.isTrap(url(`http://site.test${path}`))
    assert.isTrue(trap("/a/b/a/b/a/b"))
    assert.isTrue(trap("/x/y/a/b/a/b/a/b/z"))
    assert.isTrue(trap("/a/b/c/a/b/c/a/b/c/"))
    assert.isTrue(trap("/a/a/a/a"))
    assert.isFalse(trap("/a/b/a/b"))
    assert.isFalse(trap("/11/11/11"))
    assert.isFalse(trap("/a/b/a/b/a/c"))
    assert.isFalse(trap("/"))
    const numbered = (count: number) => `/${Array.from({ length: count }, (_, i) => i).join("/")}`
    assert.isFalse(trap(numbered(Url.pathSegmentsMax)))
    assert.isFalse(trap(`${numbered(Url.pathSegmentsMax)}/`))
    assert.isTrue(trap(numbered(Url.pathSegmentsMax + 1)))
  })
})
