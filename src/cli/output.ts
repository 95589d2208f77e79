/**
 * What goes to a terminal. Much of it was said by peers, and a terminal obeys control characters, shows text in another
 * order than it is in, and cannot show what is invisible: all of these are printed as `\u` escapes. In JSON they mean the
 * same as what they replace.
 */
import * as Console from "effect/Console"
import type * as Effect from "effect/Effect"

/** Controls, formats (directions among them), what stands alone of a pair or is not assigned, and line separators. */
const hidden = /[\p{C}\p{Zl}\p{Zp}]/gu
const hiddenInLines = /(?!\n)[\p{C}\p{Zl}\p{Zp}]/gu

const escaped = (found: string): string =>
  Array.from({ length: found.length }, (_, i) => `\\u${found.charCodeAt(i).toString(16).padStart(4, "0")}`).join("")

/** Text of a peer that is a part of a line. */
export const visible = (text: string): string => text.replace(hidden, escaped)

/** Whole lines: a line break is one. */
export const visibleLines = (text: string): string => text.replace(hiddenInLines, escaped)

/** In one line, whoever broke it. */
export const visibleLine = (text: string): string => visible(text.replace(/\s*\n\s*/g, " "))

export const log = (text: string): Effect.Effect<void> => Console.log(visibleLines(text))
export const error = (text: string): Effect.Effect<void> => Console.error(visibleLines(text))
