/**
 * Links and images of one HTML page, read while it streams in.
 *
 * Not a DOM: references are collected as text and resolved at the end, because the first `<base href>` may stand
 * anywhere. Links are `a` and `area` href, `iframe` and `frame` src; images are `img` src and srcset, `source` srcset
 * and the icons of `link`. Comments, raw text (script, style, textarea, title, xmp, iframe, ...) and templates give
 * nothing; `noscript` gives its images only.
 *
 * Invariants: the result does not depend on how the text was split; at most `linksPerPageMax` URLs are kept and what
 * is above is counted; memory is bounded by the page.
 */
import * as Html from "htmlparser2"
import * as Limits from "../Limits.ts"
import { Skim } from "./Skim.ts"
import * as Srcset from "./Srcset.ts"
import * as Url from "./Url.ts"

export interface Extracted {
  /** Absolute http(s) URLs of pages, without fragments, each key once, in page order. */
  readonly links: ReadonlyArray<string>
  /** The same for images. */
  readonly images: ReadonlyArray<string>
  /** Different references above the cap. */
  readonly dropped: number
  readonly title?: string
}

export interface Extractor {
  readonly write: (text: string) => void
  readonly end: () => Extracted
}

/** Nesting of templates, noscripts and foreign elements above which the rest of a page is not read. */
export const nestingMax = 64
/** Characters kept of a title. */
export const titleCharsMax = 512
/** Different references held until the base is known; above it they are counted without being resolved. */
const referencesMax = Limits.linksPerPageMax * 4

/**
 * The elements whose end matters. Everything else is treated as void, which keeps the parser's stack small whatever a
 * page leaves open (its cost grows with depth), and makes only the named end tag close a template, as the standard has.
 */
const tracked: ReadonlySet<string> = new Set([
  ...["template", "noscript", "svg", "math"],
  // entered from foreign elements: the parser switches back to HTML rules inside these
  ...["title", "desc", "foreignObject", "mi", "mo", "mn", "ms", "mtext", "annotation-xml"]
])

/** Those of them that change no rules for raw text; a title is raw text itself. */
const plain: ReadonlySet<string> = new Set(["template", "noscript", "title"])

class PageParser extends Html.Parser {
  protected override isVoidElement(name: string): boolean {
    return !tracked.has(name)
  }
}

interface Reference {
  readonly kind: "link" | "image"
  readonly text: string
}

export interface ExtractOptions {
  /** Hands the whole page to the parser, and not only what it has to see. */
  readonly whole?: boolean | undefined
}

export const make = (pageUrl: URL, options: ExtractOptions = {}): Extractor => {
  const references: Array<Reference> = []
  const known = new Set<string>()
  const open: Record<string, number> = { template: 0, noscript: 0, title: 0, svg: 0 }
  let base: string | undefined
  let title: string | undefined
  let titleDone = false
  let depth = 0
  let foreign = 0
  let dropped = 0

  const add = (kind: Reference["kind"], text: string | undefined): void => {
    if (text === undefined) return
    const id = `${kind} ${text}`
    if (known.has(id)) return
    if (references.length >= referencesMax) {
      dropped++
      return
    }
    known.add(id)
    references.push({ kind, text })
  }
  const addImage = (text: string | undefined): void => {
    // an empty src is no image, while an empty href is the page itself
    if (text !== undefined && text.trim() !== "") add("image", text)
  }
  const addSrcset = (text: string | undefined): void => {
    if (text !== undefined) for (const candidate of Srcset.parse(text)) addImage(candidate.url)
  }

  const onTag = (name: string, attributes: Readonly<Record<string, string | undefined>>): void => {
    switch (name) {
      case "img":
        addImage(attributes["src"])
        addSrcset(attributes["srcset"])
        return
      case "source":
        addSrcset(attributes["srcset"])
        return
    }
    if (open["noscript"]! > 0) return
    switch (name) {
      case "a":
      case "area":
        add("link", attributes["href"])
        return
      case "iframe":
      case "frame":
        if (attributes["src"]?.trim()) add("link", attributes["src"])
        return
      case "link":
        if (isIcon(attributes["rel"])) addImage(attributes["href"])
        return
      case "base":
        base ??= attributes["href"]
        return
    }
  }

  const parser = new PageParser({
    onopentag: (name, attributes) => {
      if (open["template"] === 0) onTag(name, attributes)
      if (!tracked.has(name)) return
      if (name in open) open[name]!++
      if (!plain.has(name)) foreign++
      if (++depth > nestingMax) {
        dropped++
        parser.pause()
      }
    },
    onclosetag: (name) => {
      if (!tracked.has(name)) return
      depth--
      if (!plain.has(name)) foreign--
      if (name in open) open[name]!--
      if (name === "title" && title !== undefined) titleDone = true
    },
    ontext: (text) => {
      if (titleDone || open["title"] === 0 || open["svg"]! > 0 || open["template"]! > 0) return
      title = ((title ?? "") + text).slice(0, titleCharsMax)
    }
  })

  const skim = new Skim({ write: (text) => parser.write(text), foreign: () => foreign > 0 })

  const end = (): Extracted => {
    skim.end()
    parser.end()
    const documentBase = baseOf(base, pageUrl)
    const seen = { link: new Set<string>(), image: new Set<string>() }
    const links: Array<string> = []
    const images: Array<string> = []
    for (const { kind, text } of references) {
      const url = Url.parse(text, documentBase)
      if (url === undefined) continue
      const key = Url.key(url)
      if (seen[kind].has(key)) continue
      seen[kind].add(key)
      if (links.length + images.length >= Limits.linksPerPageMax) dropped++
      else (kind === "link" ? links : images).push(Url.withoutFragment(url))
    }
    const text = title?.replace(/\s+/g, " ").trim()
    return { links, images, dropped, ...(text === undefined || text === "" ? {} : { title: text }) }
  }

  // the standard's tokenizer turns NUL into U+FFFD in tags; htmlparser2 keeps it
  const take = options.whole === true ? parser : skim
  return { write: (text) => take.write(text.replaceAll("\0", "\uFFFD")), end }
}

export const extract = (html: string, pageUrl: URL, options?: ExtractOptions): Extracted => {
  const extractor = make(pageUrl, options)
  extractor.write(html)
  return extractor.end()
}

const isIcon = (rel: string | undefined): boolean =>
  rel !== undefined && /(?:^|\s)(?:icon|apple-touch-icon|apple-touch-icon-precomposed)(?:\s|$)/i.test(rel)

/** The first base with an href decides; one that is `data:`, `javascript:` or does not parse counts as none. */
const baseOf = (href: string | undefined, pageUrl: URL): URL => {
  const base = href === undefined ? null : URL.parse(href, pageUrl.href)
  return base === null || base.protocol === "data:" || base.protocol === "javascript:" ? pageUrl : base
}
