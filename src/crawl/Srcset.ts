/**
 * The srcset attribute, by the algorithm of the HTML standard ("parse a srcset attribute").
 *
 * Pure; text in, candidates out, in the order of the attribute and with duplicates. It resolves nothing and chooses
 * nothing: which candidate a screen would show is no question of a crawler.
 *
 * Invariant: one pass over the text; a candidate with a bad descriptor is dropped alone, whatever stands around it.
 */
export interface Candidate {
  readonly url: string
  readonly width?: number
  readonly density?: number
  readonly height?: number
}

const isSpace = (char: string | undefined): boolean =>
  char === " " || char === "\t" || char === "\n" || char === "\f" || char === "\r"

export const parse = (text: string): Array<Candidate> => {
  const candidates: Array<Candidate> = []
  let at = 0
  while (true) {
    while (at < text.length && (isSpace(text[at]) || text[at] === ",")) at++
    if (at >= text.length) return candidates
    const start = at
    while (at < text.length && !isSpace(text[at])) at++
    let url = text.slice(start, at)
    let descriptors: Array<string> = []
    if (url.endsWith(",")) {
      // No pattern: `,+$` looks again from every comma of a run that another character ends.
      let end = url.length
      while (url[end - 1] === ",") end--
      url = url.slice(0, end)
    } else {
      const tokens = tokenize(text, at)
      descriptors = tokens.descriptors
      at = tokens.at
    }
    const candidate = fromDescriptors(url, descriptors)
    if (candidate !== undefined) candidates.push(candidate)
  }
}

/** Reads descriptors from `at` up to and with the comma that ends the candidate; parentheses hide commas and spaces. */
const tokenize = (text: string, at: number): { readonly descriptors: Array<string>; readonly at: number } => {
  const descriptors: Array<string> = []
  while (true) {
    while (at < text.length && isSpace(text[at])) at++
    const start = at
    let inParentheses = false
    while (at < text.length) {
      const char = text[at]
      if (inParentheses) {
        if (char === ")") inParentheses = false
      } else if (char === "(") {
        inParentheses = true
      } else if (char === "," || isSpace(char)) {
        break
      }
      at++
    }
    if (at > start) descriptors.push(text.slice(start, at))
    if (at >= text.length) return { descriptors, at }
    if (text[at] === ",") return { descriptors, at: at + 1 }
  }
}

const integer = /^[0-9]+$/
const float = /^-?(?:[0-9]+|[0-9]*\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/

const fromDescriptors = (url: string, descriptors: ReadonlyArray<string>): Candidate | undefined => {
  let width: number | undefined
  let density: number | undefined
  let height: number | undefined
  for (const descriptor of descriptors) {
    const number = descriptor.slice(0, -1)
    const value = Number(number)
    switch (descriptor.at(-1)) {
      case "w":
        if (width !== undefined || density !== undefined || !integer.test(number) || value === 0) return undefined
        width = value
        break
      case "x":
        if (width !== undefined || density !== undefined || height !== undefined) return undefined
        if (!float.test(number) || value < 0) return undefined
        density = value
        break
      case "h":
        if (height !== undefined || density !== undefined || !integer.test(number) || value === 0) return undefined
        height = value
        break
      default:
        return undefined
    }
  }
  if (height !== undefined && width === undefined) return undefined
  return {
    url,
    ...(width === undefined ? {} : { width }),
    ...(density === undefined ? {} : { density }),
    ...(height === undefined ? {} : { height })
  }
}
