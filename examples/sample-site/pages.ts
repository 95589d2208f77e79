/**
 * The pages of the sample site: 40 of them, a binary tree with cross links, every picture on one page or on several.
 *
 * They hold what makes crawling hard in small: relative and absolute links, fragments, cycles, a `<base href>`, srcset
 * with commas in URLs, `picture`, pictures in `noscript`, and references that must not be followed (in comments,
 * scripts, templates, `mailto:`). The server that answers is `site.ts`.
 *
 * Invariant: from `/` every page is at most 6 links away, exactly one link is broken, and exactly 301 image URLs are
 * named: 300 pictures and one that always fails.
 */
import { type Image, makeImage } from "./images.ts"

export const pageCount = 40
export const imageCount = 300
export const brokenPath = "/rooms/closed.html"
export const failingPath = "/images/failing.png"

/** The page with a base, and the two that link to the broken page and to the failing image. */
const basePage = 7
const brokenOn = 13
const failingOn = [9, 30]
/** The picture that answers 503 twice before it comes. */
export const flakyImage = 77

export interface Picture extends Image {
  readonly index: number
  /** Where the bytes are. */
  readonly path: string
  /** What pages name: the same, or the first of the redirects that lead there. */
  readonly reference: string
  readonly redirects: ReadonlyArray<{ readonly from: string; readonly to: string; readonly status: 301 | 302 }>
}

export const pagePath = (page: number): string => {
  if (page === 0) return "/"
  if (page % 3 === 0) return `/halls/${page}/index.html`
  return page % 3 === 1 ? `/rooms/${page}/` : `/rooms/${page}.html`
}

const picturePath = (index: number, extension: string): string => {
  const name = `picture-${String(index).padStart(3, "0")}`
  if (index % 10 === 4) return `/images/w_320,h_240/${name}.${extension}`
  if (index % 25 === 8) return `/images/show?id=${index}&size=large`
  if (index % 50 === 14) return `/images/the%20${name}.${extension}`
  return `/images/${extension}/${name}.${extension}`
}

/** Pictures 20, 43, 66, ... (12 of them) are only named by a redirect; the first one by a chain of two. */
const redirectsOf = (index: number, path: string): Picture["redirects"] => {
  const number = (index - 20) / 23
  if (!Number.isInteger(number) || number < 0 || number > 11) return []
  const from = `/go/${number}`
  const via = `/go/${number}/next`
  return number === 0
    ? [
        { from, to: via, status: 302 },
        { from: via, to: path, status: 301 }
      ]
    : [{ from, to: path, status: number % 2 === 0 ? 302 : 301 }]
}

export const makePictures = (): ReadonlyArray<Picture> =>
  Array.from({ length: imageCount }, (_, index) => {
    const image = makeImage(index)
    const path = picturePath(index, image.extension)
    const redirects = redirectsOf(index, path)
    return { ...image, index, path, redirects, reference: redirects[0]?.from ?? path }
  })

/** The shortest usual way to write a path seen from a folder that ends in `/`. */
const relative = (folder: string, path: string): string => {
  const from = folder.split("/").slice(1, -1)
  const to = path.split("/").slice(1)
  let common = 0
  while (common < from.length && common < to.length - 1 && from[common] === to[common]) common++
  const text = "../".repeat(from.length - common) + to.slice(common).join("/")
  return text === "" ? "./" : text
}

const escape = (text: string): string => text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;")

const link = (href: string, text: string): string => `<a href="${escape(href)}">${escape(text)}</a>`

/** One of the forms in which pages name pictures; `other` is one that the page has anyway. */
const figure = (picture: Picture, src: string, other: string): string => {
  const url = escape(src)
  const alt = `alt="Picture ${picture.index}" loading="lazy"`
  switch (picture.index % 6) {
    case 2:
      return `<img srcset="${url} 1x, ${escape(other)} 2x" ${alt}>`
    case 3:
      return `<picture><source srcset="${url}" type="${picture.contentType}"><img src="${url}" ${alt}></picture>`
    case 4:
      return `<img src="${escape(other)}" srcset="${escape(other)} 200w, ${url} 400w" sizes="200px" ${alt}>`
    case 5:
      return picture.index % 12 === 5 ? `<noscript><img src="${url}" ${alt}></noscript>` : `<IMG ${alt} SRC='${url}'>`
    default:
      return `<img src="${url}" ${alt}>`
  }
}

const style =
  "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}nav a{margin-right:1rem}" +
  "img{max-width:200px;max-height:150px;margin:4px;vertical-align:top}"

/** What no crawler may follow; a request for `/never/...` shows one that does. */
const decoys = `<!-- <a href="/never/comment.html"><img src="/never/comment.png"> -->
<script>const text = '<a href="/never/script.html"><img src="/never/script.png"></a>'</script>
<template><a href="/never/template.html">never</a><img src="/never/template.png"></template>
<p>${link("mailto:curator@localhost", "Write to us")} ${link("javascript:void(0)", "Nothing")}
<img src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7" alt=""></p>`

export const renderPage = (page: number, origin: string, pictures: ReadonlyArray<Picture>): string => {
  const path = pagePath(page)
  const folder = page === basePage ? "/halls/" : path.slice(0, path.lastIndexOf("/") + 1)
  const own = pictures.filter(({ index }) => index % pageCount === page)
  const borrowed = pictures.filter(({ index }) => index % 3 === 0 && (index * 7 + 3) % pageCount === page)
  const write = (target: string, form: number): string =>
    [target, relative(folder, target), origin + target, `${target}#pictures`][form % 4]!
  const source = (picture: Picture, form: number): string =>
    form % 2 === 0 ? picture.reference : relative(folder, picture.reference)

  const children = [page * 2 + 1, page * 2 + 2].filter((child) => child < pageCount)
  const others = [Math.max(0, Math.floor((page - 1) / 2)), (page * 7 + 5) % pageCount, (page * 11 + 2) % pageCount]
  const links = [...children, ...others].map((target, i) => link(write(pagePath(target), page + i), `Page ${target}`))
  // with a base, a bare fragment would lead to the base and not to this page
  links.push(link(page === basePage ? `${path}#top` : "#top", "Top"))
  if (page === brokenOn) links.push(link(write(brokenPath, 1), "The closed room"))
  const images = [...own, ...borrowed].map((picture, i) => figure(picture, source(picture, i), own[0]!.reference))
  if (failingOn.includes(page)) images.push(`<img src="${write(failingPath, page % 2)}" alt="A picture that fails">`)

  return `<!DOCTYPE html>
<html lang="en" id="top">
<head>
<meta charset="utf-8">
<title>Page ${page} · Sample site</title>
${page === basePage ? '<base href="../../halls/">\n' : ""}<link rel="shortcut icon" href="${pictures[0]!.reference}">
<style>${style}</style>
</head>
<body>
<h1>Page ${page}</h1>
<nav>${links.join("\n")}</nav>
<section id="pictures">
${images.join("\n")}
</section>
${decoys}
</body>
</html>
`
}
