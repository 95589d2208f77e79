/**
 * URLs of a crawl: parsing, the dedupe key, the host, and what belongs to the crawl.
 *
 * Two forms are kept: a `URL` as it was found, which is fetched, and its `key`, which decides whether it was seen.
 * The key never changes what a server sees: no sorting, no tracking parameters removed, no `www` rules.
 * Not here: robots rules, address guards, and the encoding of queries in legacy pages (UTF-8 is assumed).
 *
 * Invariant: a URL that left `parse` is http or https, carries no user or password and is at most `urlCharsMax` long;
 * `key(parse(key(url))) === key(url)`.
 */
import * as Limits from "../Limits.ts"

/** Which URLs belong to a crawl: those whose host (with a port that is not the default) or whose origin is listed. */
export interface Scope {
  readonly hosts?: ReadonlyArray<string> | undefined
  readonly origins?: ReadonlyArray<string> | undefined
}

/** Path segments above which a URL is taken for a trap (the number Heritrix uses). */
export const pathSegmentsMax = 20

/** Resolves `text` as a browser would. `undefined` for anything but a short enough http or https URL. */
export const parse = (text: string, base?: string | URL | undefined): URL | undefined => {
  const url = URL.parse(text, typeof base === "object" ? base.href : base)
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) return undefined
  if (url.username !== "" || url.password !== "") {
    url.username = ""
    url.password = ""
  }
  return url.href.length <= Limits.urlCharsMax ? url : undefined
}

/** The lane of a URL: host name, and the port unless it is the default one of the scheme. */
export const host = (url: URL): string => url.host

/** What goes over the wire: the URL without its fragment. */
export const withoutFragment = (url: URL): string => {
  const at = url.href.indexOf("#")
  return at === -1 ? url.href : url.href.slice(0, at)
}

const unreserved = /[A-Za-z0-9\-._~]/

const stray = /%(?![0-9A-Fa-f]{2})/

const normalizePercent = (text: string): string => {
  if (!text.includes("%")) return text
  // Behind a percent sign that encodes nothing, what is decoded could be taken for what it encodes (`%%341` for `%41`).
  const decodes = !stray.test(text)
  return text.replace(/%[0-9A-Fa-f]{2}/g, (triplet) => {
    const char = String.fromCharCode(Number.parseInt(triplet.slice(1), 16))
    return decodes && unreserved.test(char) ? char : triplet.toUpperCase()
  })
}

/**
 * The dedupe key: fragment dropped, percent-encoding in upper case, unreserved characters decoded (unless a percent sign
 * encodes nothing), empty query dropped.
 */
export const key = (url: URL): string =>
  `${url.protocol}//${url.host}${normalizePercent(url.pathname)}${normalizePercent(url.search)}`

/** The scope of a crawl that says nothing else: the host of the URL it starts at, by http or https. */
export const scopeOf = (start: URL): Scope => ({ hosts: [host(start)] })

/** In scope: a listed host or origin, and no trap. */
export const inScope = (url: URL, scope: Scope): boolean =>
  (scope.hosts?.includes(host(url)) === true || scope.origins?.includes(url.origin) === true) && !isTrap(url)

/**
 * A path that a broken link generator makes: more than `pathSegmentsMax` segments, or a run of segments three times in
 * a row (`/a/b/a/b/a/b`). One single segment may stand three times (`/11/11/11` is a date), not four.
 */
export const isTrap = (url: URL): boolean => {
  const segments = url.pathname.split("/").slice(1)
  if (segments.at(-1) === "") segments.pop()
  if (segments.length > pathSegmentsMax) return true
  for (let period = 1; period * 3 <= segments.length; period++) {
    const times = period === 1 ? 4 : 3
    let equal = 0
    for (let i = period; i < segments.length; i++) {
      equal = segments[i] === segments[i - period] ? equal + 1 : 0
      if (equal >= period * (times - 1)) return true
    }
  }
  return false
}
