/**
 * `JSON.parse` without a fault that V8 has had since 13 at the latest (nodejs/node#63785, open in November 2026): a key that is
 * written with an escape may read as another key that was parsed before, one with a backslash (`"a\""` as `a\`). Whoever may
 * put tasks could so make a worker read another value than was put.
 *
 * Keys with escapes are parsed as texts of their own, which V8 does right, and stand for themselves under names without any.
 */

const quote = 0x22
const backslash = 0x5c
const colon = 0x3a

/** Throws `SyntaxError`. */
export const parseJson = (text: string): unknown => {
  const value: unknown = JSON.parse(text)
  if (!text.includes("\\")) return value
  const mark = unusedIn(text)
  const keys: Array<string> = []
  let marked = ""
  let from = 0
  // It has been parsed: every string ends.
  for (let i = text.indexOf('"'); i >= 0; ) {
    let end = i + 1
    let escaped = false
    for (let code = text.charCodeAt(end); code !== quote; code = text.charCodeAt(end)) {
      if (code === backslash) escaped = true
      end += code === backslash ? 2 : 1
    }
    end++
    if (escaped && isKey(text, end)) {
      marked += `${text.slice(from, i)}"${mark}${keys.length}"`
      keys.push(JSON.parse(text.slice(i, end)) as string)
      from = end
    }
    i = text.indexOf('"', end)
  }
  if (keys.length === 0) return value
  return unmarked(JSON.parse(marked + text.slice(from)), mark, keys)
}

/** Whether a colon follows. */
const isKey = (text: string, from: number): boolean => {
  let at = from
  while (text.charCodeAt(at) <= 0x20) at++
  return text.charCodeAt(at) === colon
}

const unusedIn = (text: string): string => {
  for (let n = 0; ; n++) if (!text.includes(`~${n}~`)) return `~${n}~`
}

const unmarked = (value: unknown, mark: string, keys: ReadonlyArray<string>): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map((item) => unmarked(item, mark, keys))
  const object = {}
  for (const [key, item] of Object.entries(value)) {
    const name = key.startsWith(mark) ? keys[Number(key.slice(mark.length))]! : key
    // Not by assignment: `__proto__` is a key like any other.
    const field = { value: unmarked(item, mark, keys), configurable: true, enumerable: true, writable: true }
    Object.defineProperty(object, name, field)
  }
  return object
}
