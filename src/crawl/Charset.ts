/**
 * The character encoding of an HTML page: byte order mark, then Content-Type, then `<meta>` in the first 1024 bytes,
 * then UTF-8.
 *
 * Pure. Decoding itself is the platform's `TextDecoder`; a label it does not know counts as absent and is reported, it
 * never fails a page. Not here: guessing from the text, and the encoding of the page that linked here.
 *
 * Invariant: the answer depends on the first `prescanBytes` of the body and on the header only.
 */

/** Bytes of a page that are looked at. */
export const prescanBytes = 1_024

export interface Charset {
  /** A label that `TextDecoder` accepts, in its canonical spelling. */
  readonly label: string
  readonly source: "bom" | "header" | "meta" | "default"
  /** The first label that was given and not understood. */
  readonly unknown?: string
}

/** The canonical name of a label, or `undefined` where the platform has no such decoder. */
const canonical = (label: string): string | undefined => {
  try {
    return new TextDecoder(label.trim()).encoding
  } catch {
    return undefined
  }
}

export const detect = (head: Uint8Array, contentType: string | undefined): Charset => {
  const bom = bomOf(head)
  if (bom !== undefined) return { label: bom, source: "bom" }
  let unknown: string | undefined
  const header = charsetOf(contentType ?? "")
  if (header !== undefined) {
    const label = canonical(header)
    if (label !== undefined) return { label, source: "header" }
    unknown = header
  }
  const meta = prescan(head)
  if (meta !== undefined) {
    const label = canonical(meta)
    // a meta that could be read as bytes was not written in UTF-16; `x-user-defined` means windows-1252 here
    if (label?.startsWith("utf-16") === true) return { label: "utf-8", source: "meta" }
    if (/^x-user-defined$/i.test(meta)) return { label: "windows-1252", source: "meta" }
    if (label !== undefined) return { label, source: "meta" }
    unknown ??= meta
  }
  return { label: "utf-8", source: "default", ...(unknown === undefined ? {} : { unknown }) }
}

const bomOf = (head: Uint8Array): string | undefined => {
  if (head[0] === 0xef && head[1] === 0xbb && head[2] === 0xbf) return "utf-8"
  if (head[0] === 0xfe && head[1] === 0xff) return "utf-16be"
  if (head[0] === 0xff && head[1] === 0xfe) return "utf-16le"
  return undefined
}

/** The value of `charset=` in a Content-Type or in the content of a meta. */
const charsetOf = (text: string): string | undefined => {
  const match = /charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s;"']+))/i.exec(text)
  return match === null ? undefined : (match[1] ?? match[2] ?? match[3])
}

/** The prescan of the HTML standard: comments are skipped, the first meta that names an encoding counts. */
const prescan = (head: Uint8Array): string | undefined => {
  const text = String.fromCharCode(...head.subarray(0, prescanBytes))
  let at = 0
  while (at < text.length) {
    at = text.indexOf("<", at)
    if (at === -1) return undefined
    if (text.startsWith("<!--", at)) {
      const end = text.indexOf("-->", at + 2)
      if (end === -1) return undefined
      at = end + 3
    } else if (/^<\/?[a-z]/i.test(text.slice(at, at + 3))) {
      const tag = readTag(text, at)
      const { charset, content } = tag.attributes
      if (tag.name === "meta") {
        if (charset !== undefined) return charset
        const label =
          tag.attributes["http-equiv"]?.toLowerCase() === "content-type" ? charsetOf(content ?? "") : undefined
        if (label !== undefined) return label
      }
      at = tag.end
    } else if (/[!/?]/.test(text[at + 1] ?? "")) {
      const end = text.indexOf(">", at)
      if (end === -1) return undefined
      at = end + 1
    } else {
      at++
    }
  }
  return undefined
}

const attribute = /[\s/]*([^\s/>][^\s/>=]*)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"'][^\s>]*)))?/y

const readTag = (text: string, start: number) => {
  const name = /^<(\/?[^\s/>]+)/.exec(text.slice(start))![1]!.toLowerCase()
  const attributes: Record<string, string> = Object.create(null)
  let end = start + 1 + name.length
  while (true) {
    attribute.lastIndex = end
    const match = attribute.exec(text)
    if (match === null) break
    end = attribute.lastIndex
    attributes[match[1]!.toLowerCase()] ??= match[2] ?? match[3] ?? match[4] ?? ""
  }
  const close = text.indexOf(">", end)
  return { name, attributes, end: close === -1 ? text.length : close + 1 }
}
