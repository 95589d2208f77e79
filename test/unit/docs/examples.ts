/**
 * Reads the tables and the byte examples of `docs/protocol.md`, and prints examples in the page's own form.
 *
 *     ```frame client put, one task        ```transcript
 *     <hex> ; <what it is>                 > <hex> of a client's frame, or < <hex> of a manager's
 *     = <meaning of a message, JSON>       = <meaning of a message, JSON>
 *     ```                                  ```
 *
 * A meaning is what the decoders return, with the type as a word, absent as null, and bytes as "hex:<digits>" or, for
 * payloads of codec 1, "json:<text>".
 */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { type Reader, Reader as WireReader } from "../../../src/wire/Bytes.ts"
import * as Client from "../../../src/wire/ClientMessages.ts"
import { FrameReader, FrameWriter, flushed } from "../../../src/wire/Frames.ts"
import * as Manager from "../../../src/wire/ManagerMessages.ts"
import { ClientType, ManagerType } from "../../../src/wire/Vocabulary.ts"

export const pagePath = fileURLToPath(new URL("../../../docs/protocol.md", import.meta.url))
export const page = readFileSync(pagePath, "utf8")

export type Side = "client" | "manager"
/** A message as JSON; `type` is its word. */
export type Meaning = { readonly type: string } & Record<string, unknown>

export interface Frame {
  readonly side: Side
  readonly bytes: Uint8Array
  readonly meanings: ReadonlyArray<Meaning>
}

export interface Example extends Frame {
  readonly name: string
  readonly text: string
}

// ---- tables

/** The cells of the first table after `heading`, without its head. */
export const table = (heading: string, from = page): ReadonlyArray<ReadonlyArray<string>> => {
  const at = from.indexOf(`\n${heading}`)
  if (at < 0) throw new Error(`no heading "${heading}"`)
  const section = from.slice(at + 1).split(/\n#{2,4} /)[0] ?? ""
  const lines = section.split("\n")
  const first = lines.findIndex((line) => line.startsWith("|"))
  if (first < 0) return []
  const rows: Array<ReadonlyArray<string>> = []
  for (let i = first + 2; lines[i]?.startsWith("|"); i++) {
    rows.push(
      lines[i]!.split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim().replaceAll("`", ""))
    )
  }
  return rows
}

export interface DocumentedMessage {
  readonly type: number
  readonly word: string
  /** Elements after the type. */
  readonly elements: ReadonlyArray<string>
  /** How many of them every such message has: the last ones may be left out where the table says so. */
  readonly needed: number
}

/** Every heading `#### 0x11 put` with the names of its table. */
export const messages: ReadonlyArray<DocumentedMessage> = [...page.matchAll(/^#### (0x[0-9a-f]{2}) `(\w+)`$/gm)].map(
  ([heading, type, word]) => {
    const rows = table(heading)
    return {
      type: Number(type),
      word: word!,
      elements: rows.map(([, element]) => element!),
      needed: rows.filter(([, , , , meaning]) => meaning?.includes("may be left out") !== true).length
    }
  }
)

// ---- meanings

const words = (side: Side): Readonly<Record<string, number>> => (side === "client" ? ClientType : ManagerType)

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

const bytesAsText = (bytes: Uint8Array): string => {
  const text = Buffer.from(bytes.subarray(1)).toString("utf8")
  return bytes[0] === 1 && /^[\x20-\x7e]+$/.test(text) ? `json:${text}` : `hex:${hex(bytes)}`
}

const meaningOfValue = (value: unknown): unknown => {
  if (value === undefined) return null
  if (value instanceof Uint8Array) return bytesAsText(value)
  if (Array.isArray(value)) return value.map(meaningOfValue)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, meaningOfValue(item)]))
}

export const meaningOf = (side: Side, message: Client.ClientMessage | Manager.ManagerMessage): Meaning => {
  const word = Object.entries(words(side)).find(([, type]) => type === message.type)?.[0] ?? "?"
  return { ...(meaningOfValue(message) as object), type: word }
}

const valueOf = (meaning: unknown): unknown => {
  if (meaning === null) return undefined
  if (typeof meaning === "string" && meaning.startsWith("hex:"))
    return new Uint8Array(Buffer.from(meaning.slice(4), "hex"))
  if (typeof meaning === "string" && meaning.startsWith("json:")) {
    return new Uint8Array([1, ...Buffer.from(meaning.slice(5), "utf8")])
  }
  if (Array.isArray(meaning)) return meaning.map(valueOf)
  if (typeof meaning !== "object") return meaning
  return Object.fromEntries(Object.entries(meaning).map(([key, item]) => [key, valueOf(item)]))
}

/** One frame that carries these messages. */
export const encoded = (side: Side, meanings: ReadonlyArray<Meaning>): Uint8Array => {
  const frames = new FrameWriter()
  for (const meaning of meanings) {
    const message = { ...(valueOf(meaning) as object), type: words(side)[meaning.type] } as never
    if (side === "client") Client.encode(frames.begin(), message)
    else Manager.encode(frames.begin(), message)
  }
  return flushed(frames)
}

/** The bodies of all frames in `bytes`; throws where a stream would be broken or cut short. */
export const bodies = (bytes: Uint8Array): ReadonlyArray<Uint8Array> => {
  const found: Array<Uint8Array> = []
  const reader = new FrameReader(20 * 1_024 * 1_024)
  reader.push(bytes, (body) => found.push(body))
  if (reader.fault !== undefined || reader.partial) throw new Error(reader.fault ?? "a frame cut short")
  return found
}

export const decoded = (side: Side, bytes: Uint8Array): ReadonlyArray<Meaning> => {
  const decode: (r: Reader) => Client.ClientMessage | Manager.ManagerMessage =
    side === "client" ? Client.decode : Manager.decode
  return bodies(bytes).flatMap((body) => {
    const reader = new WireReader(body)
    const found: Array<Meaning> = []
    while (!reader.done) found.push(meaningOf(side, decode(reader)))
    return found
  })
}

// ---- blocks

const hexOf = (lines: ReadonlyArray<string>): Uint8Array =>
  new Uint8Array(Buffer.from(lines.map((line) => line.replace(/;.*/, "").replaceAll(/\s/g, "")).join(""), "hex"))

/** Lines from `=` on: a meaning begins at `=`, and goes on in lines that begin with a space. */
const meaningsOf = (lines: ReadonlyArray<string>): ReadonlyArray<Meaning> =>
  lines
    .join("\n")
    .split(/^= /m)
    .slice(1)
    .map((text) => JSON.parse(text) as Meaning)

const parsed = (side: Side, lines: ReadonlyArray<string>): Frame => {
  const at = lines.findIndex((line) => line.startsWith("= "))
  const upTo = at < 0 ? lines.length : at
  return { side, bytes: hexOf(lines.slice(0, upTo)), meanings: meaningsOf(lines.slice(upTo)) }
}

const framePattern = /^```frame (client|manager) ([^\n]+)\n([\s\S]*?)^```$/gm

export const examples: ReadonlyArray<Example> = [...page.matchAll(framePattern)].map(([, side, name, text]) => ({
  ...parsed(side as Side, text!.trimEnd().split("\n")),
  name: name!,
  text: text!
}))

const transcriptPattern = /^```transcript\n([\s\S]*?)^```$/m

const transcriptText = transcriptPattern.exec(page)?.[1] ?? ""

export const transcript: ReadonlyArray<Frame> = transcriptText
  .split(/^(?=[<>] )/m)
  .filter((part) => /^[<>] /.test(part))
  .map((part) => {
    const lines = part.split("\n").filter((line) => line !== "" && !line.startsWith("#"))
    return parsed(part.startsWith(">") ? "client" : "manager", [lines[0]!.slice(2), ...lines.slice(1)])
  })

// ---- printing

const hexWidth = 60

/** JSON in lines of about 110 columns, broken between elements. */
export const printMeaning = (meaning: Meaning): string => {
  const { type, ...rest } = meaning
  const tokens = JSON.stringify({ type, ...rest }).match(/"(?:[^"\\]|\\.)*"|[^"]/g) ?? []
  let line = "= "
  const lines: Array<string> = []
  for (let i = 0; i < tokens.length; i++) {
    line += tokens[i]
    let ahead = 0
    for (let j = i + 1; j < tokens.length && tokens[j] !== ","; j++) ahead += tokens[j]!.length
    if (tokens[i] === "," && line.length + ahead > 110) {
      lines.push(line)
      line = "   "
    }
  }
  return [...lines, line].join("\n")
}

const hexLines = (bytes: Uint8Array, comment: string, width: number): ReadonlyArray<string> => {
  const digits = hex(bytes).match(/../g) ?? []
  const lines: Array<string> = []
  for (let i = 0; i < digits.length; i += width) lines.push(digits.slice(i, i + width).join(" "))
  if (comment === "") return lines
  return lines.map((line, i) => (i === 0 ? `${line.padEnd(hexWidth)} ; ${comment}` : line))
}

/** The example as it stands on the page: one element of the message a line. */
export const printExample = (side: Side, meanings: ReadonlyArray<Meaning>): string => {
  const bytes = encoded(side, meanings)
  const lines = [...hexLines(bytes.subarray(0, 4), `${bytes.byteLength - 4} bytes follow`, 20)]
  const reader = new WireReader(bytes.subarray(4))
  for (const meaning of meanings) {
    const type = words(side)[meaning.type]!
    const documented = messages.find((message) => message.type === type)
    let from = reader.position
    const length = reader.array(32)
    reader.uint()
    lines.push(
      ...hexLines(reader.bytes.subarray(from, reader.position), `${length} elements; type ${meaning.type}`, 20)
    )
    for (let i = 1; i < length; i++) {
      from = reader.position
      reader.skip(1)
      lines.push(...hexLines(reader.bytes.subarray(from, reader.position), documented?.elements[i - 1] ?? "?", 20))
    }
  }
  return [...lines, ...meanings.map(printMeaning), ""].join("\n")
}

export const printFrame = (side: Side, meanings: ReadonlyArray<Meaning>): string => {
  const lines = hexLines(encoded(side, meanings), "", 36)
  const first = `${side === "client" ? ">" : "<"} ${lines[0]}`
  return [first, ...lines.slice(1).map((line) => `  ${line}`), ...meanings.map(printMeaning), ""].join("\n")
}

/** The page with the hex of every example written anew from its meanings. */
export const printPage = (): string => {
  const withFrames = page.replaceAll(framePattern, (_, side: Side, name: string, text: string) => {
    const { meanings } = parsed(side, text.trimEnd().split("\n"))
    return `\`\`\`frame ${side} ${name}\n${printExample(side, meanings)}\`\`\``
  })
  return withFrames.replace(transcriptPattern, (_, text: string) => {
    const parts = text.split(/^(?=[<>] |#)/m).map((part) => {
      if (part.startsWith("#")) return part
      const side = part.startsWith(">") ? "client" : "manager"
      const lines = part.split("\n").filter((line) => line !== "")
      return `${printFrame(side, parsed(side, [lines[0]!.slice(2), ...lines.slice(1)]).meanings)}\n`
    })
    return `\`\`\`transcript\n${parts.join("").trimEnd()}\n\`\`\``
  })
}
