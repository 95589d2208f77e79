/**
 * `JSON.parse` without a fault that V8 has had since 13 at the latest (nodejs/node#63785, open in November 2026): once a
 * key that is one backslash was parsed, a key that is written as one escape (`"\n"`, `"\u0000"`) may read as a backslash.
 * Whoever may put tasks could so make a worker read another value than was put.
 */

/** The end of a key that is one escape, as far as it can be seen; a text without this is parsed as it is. */
const suspect = '"\\'
const oneEscape = /"(\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))"(\s*:)/g

/** Throws `SyntaxError`. */
export const parseJson = (text: string): unknown => {
  if (!text.includes(suspect)) return JSON.parse(text)
  const mark = unusedIn(text)
  // A quote that ends a string cannot be followed by a backslash: whatever matches is the end of a key.
  const marked = text.replace(oneEscape, `"$1${mark}"$2`)
  const value: unknown = JSON.parse(marked)
  return marked.length === text.length ? value : unmarked(value, mark)
}

const unusedIn = (text: string): string => {
  for (let n = 0; ; n++) if (!text.includes(`~${n}~`)) return `~${n}~`
}

const unmarked = (value: unknown, mark: string): unknown => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map((item) => unmarked(item, mark))
  const object = {}
  for (const [key, item] of Object.entries(value)) {
    const name = key.endsWith(mark) ? key.slice(0, -mark.length) : key
    // Not by assignment: `__proto__` is a key like any other.
    const field = { value: unmarked(item, mark), configurable: true, enumerable: true, writable: true }
    Object.defineProperty(object, name, field)
  }
  return object
}
