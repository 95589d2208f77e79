/**
 * The site that is crawled: HTML pages of 10 to 40 KiB, the same for the same seed. Every page can be reached from the first
 * one, by links written in all the ways that pages have (relative, from the root, absolute, with fragments, twice).
 *
 * No images, so that a crawler that fetches them has no more to do than one that does not; some links lead to other hosts,
 * which a crawler has to leave alone.
 */
export interface SiteOptions {
  readonly pages: number
  readonly seed: number
  readonly origin: string
}

const sections = 40

export const pathOf = (page: number): string => `/docs/s${page % sections}/page-${page}.html`

/** Numbers from 0 up to 1 (mulberry32). */
const random = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

const words = (
  "the of and a to in is it that was for on are with as at be this have from or one had by word but not what all were when " +
  "we there can an your which their said if do will each about how up out them then she many some so these would other into " +
  "manager worker queue lease commit page crawl link host café naïve Zürich 東京 — “quoted” &amp; &copy; R&amp;D x&lt;y"
).split(" ")

/** One page as text. */
const render = ({ origin, pages, seed }: SiteOptions, page: number): string => {
  const next = random(seed * 1_000_003 + page)
  const below = (n: number): number => Math.floor(next() * n)
  const text = (count: number): string => Array.from({ length: count }, () => words[below(words.length)]).join(" ")
  const hrefOf = (to: number): string => {
    const path = pathOf(to)
    const form = below(10)
    if (form < 4) return path
    if (form < 7) return to % sections === page % sections ? `page-${to}.html` : `../s${to % sections}/page-${to}.html`
    if (form < 8) return `${origin}${path}`
    return `${path}#part-${below(9)}`
  }
  const anchor = (to: number): string =>
    `<a class="link link--${below(9)}" href="${hrefOf(to)}">${text(1 + below(4))}</a>`

  // The tree by which all are reached, then links at random.
  const targets = [2 * page + 1, 2 * page + 2].filter((to) => to < pages)
  const wanted = 30 + below(31)
  while (targets.length < wanted) targets.push(below(pages))
  const blocks = targets.map(
    (to, i) => `
        <section class="block block--${i % 5}" id="part-${i}" data-index="${i}">
          <header><h2>${text(3 + below(5))}</h2><span class="meta"><time datetime="2026-01-${10 + (i % 20)}">${text(2)}</time></span></header>
          <div class="body"><div class="inner"><p>${text(5 + below(14))} ${anchor(to)}, ${text(3 + below(10))}.</p></div>
            <ul>${`<li><em>${text(2)}</em> <strong>${text(3)}</strong></li>`.repeat(below(4))}</ul></div>
        </section>`
  )
  const outside = Array.from(
    { length: 3 },
    (_, i) => `<a href="https://host-${i}.invalid/?a=${page}&amp;b=${i}">${text(2)}</a>`
  )
  const filler = Array.from({ length: below(16) }, () => `\n        <p class="filler">${text(30 + below(40))}</p>`)
  return `<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Page ${page}: ${text(5)}</title>
  <link rel="stylesheet" href="/style.css">
  <style>${".block { margin: 0 auto; padding: 1rem } .block > .inner { color: #333 }\n".repeat(8)}</style>
  <script>${'window.data = window.data || []; window.data.push({ page: "<a href=\\"/no/link.html\\">" });\n'.repeat(6)}</script>
</head>
<body class="page">
  <!-- <a href="/docs/commented-out.html">no link</a> -->
  <div id="top"><div class="wrap"><nav aria-label="main"><ul>${[0, 1, 2].map((to) => `<li>${anchor(to % pages)}</li>`).join("")}</ul></nav></div></div>
  <div id="main" class="wrap"><div class="columns"><div class="column column--wide">
      <article>${blocks.join("")}${filler.join("")}
      </article>
  </div><div class="column"><aside>${outside.join("\n")}</aside></div></div></div>
  <footer><p>${text(12)}</p><form action="/search"><input name="q"><button>${text(1)}</button></form></footer>
</body>
</html>
`
}

export const renderSite = (options: SiteOptions): ReadonlyMap<string, Buffer> => {
  const site = new Map<string, Buffer>()
  for (let page = 0; page < options.pages; page++) site.set(pathOf(page), Buffer.from(render(options, page)))
  return site
}
