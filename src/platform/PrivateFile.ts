/**
 * Files with secrets: read and added to only while nobody but their owner can. What is looked at is what is used: the
 * descriptor that was opened, not the name.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import process from "node:process"
import { Hex } from "effect/encoding"
import { randomBytes } from "./Crypto.ts"
import { publishFile, syncFolder } from "./DataFolder.ts"

/** Why a private file cannot be used: what is found, what to do. */
export interface PrivateFileFault {
  readonly _tag: "Refused"
  readonly value: string
  readonly remedy: string
}

export type PrivateText = { readonly _tag: "Read"; readonly text: string } | PrivateFileFault

const refused = (value: string, remedy: string): PrivateFileFault => ({ _tag: "Refused", value, remedy })

const codeOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : String(error)

/** What is wrong with an open file for a secret; undefined: nothing. */
const faultOf = (found: fs.Stats, file: string, bytesMax: number): PrivateFileFault | undefined => {
  if (!found.isFile()) return refused("not a file", "name a file")
  const own = process.geteuid?.()
  if (own !== undefined && found.uid !== own) {
    return refused(`owned by user ${found.uid}`, `run as that user, or make the file your own: chown ${own} ${file}`)
  }
  // Windows has no such modes.
  if (process.platform !== "win32" && (found.mode & 0o077) !== 0) {
    const mode = (found.mode & 0o777).toString(8).padStart(4, "0")
    return refused(`of mode ${mode}`, `others may not read or write it: chmod 600 ${file}`)
  }
  if (found.size > bytesMax) return refused(`${found.size} bytes long`, `use at most ${bytesMax}`)
  return undefined
}

const textOf = (descriptor: number, bytesMax: number): PrivateText => {
  // One byte more than may be: it may have grown since it was measured.
  const bytes = new Uint8Array(bytesMax + 1)
  let size = 0
  for (let read = -1; read !== 0 && size < bytes.byteLength; size += read) {
    read = fs.readSync(descriptor, bytes, size, bytes.byteLength - size, size)
  }
  if (size > bytesMax) return refused(`over ${bytesMax} bytes long`, `use at most ${bytesMax}`)
  try {
    return { _tag: "Read", text: new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(0, size)) }
  } catch {
    return refused("no UTF-8 text", "write it anew")
  }
}

const withFile = <A>(file: string, flags: number, use: (descriptor: number) => A): A | PrivateFileFault => {
  let descriptor: number
  try {
    descriptor = fs.openSync(file, flags, 0o600)
  } catch (error) {
    const missing = codeOf(error) === "ENOENT"
    return refused(missing ? "not there" : `not to be opened (${codeOf(error)})`, "check the path and its rights")
  }
  try {
    return use(descriptor)
  } catch (error) {
    return refused(`not to be used (${codeOf(error)})`, "check the disk and the rights of the file")
  } finally {
    fs.closeSync(descriptor)
  }
}

// A pipe in the place of the file must not hold the program up.
const { O_APPEND, O_CREAT, O_NONBLOCK = 0, O_RDONLY, O_RDWR } = fs.constants

/** The text of a file that is its owner's alone (mode 0600 or less), and ours. */
export const readPrivateFile = (file: string, bytesMax: number): PrivateText =>
  withFile(
    file,
    O_RDONLY | O_NONBLOCK,
    (descriptor) => faultOf(fs.fstatSync(descriptor), file, bytesMax) ?? textOf(descriptor, bytesMax)
  )

/**
 * Adds a line, made from what is there, to such a file; makes the file, of mode 0600, where there is none. The line is on
 * the disk when this returns. Where `make` has none, nothing is written.
 */
export const appendPrivateLine = (
  file: string,
  bytesMax: number,
  make: (text: string) => string | undefined
): PrivateText =>
  withFile(file, O_RDWR | O_APPEND | O_CREAT | O_NONBLOCK, (descriptor) => {
    const found = faultOf(fs.fstatSync(descriptor), file, bytesMax) ?? textOf(descriptor, bytesMax)
    if (found._tag === "Refused") return found
    const line = make(found.text)
    if (line === undefined) return found
    const { text } = found
    const added = new TextEncoder().encode(`${text === "" || text.endsWith("\n") ? "" : "\n"}${line}\n`)
    if (new TextEncoder().encode(text).byteLength + added.byteLength > bytesMax) {
      return refused("full", `a file has at most ${bytesMax} bytes: take out what is no longer used`)
    }
    // One write: two programs that add at the same time do not mix their lines.
    if (fs.writeSync(descriptor, added) !== added.byteLength) return refused("cut short", "make room on the disk")
    fs.fsyncSync(descriptor)
    return found
  })

/**
 * The text of `name` in `folder`, both made where they are not there (modes 0600 and 0700): `text` is written whole, and on
 * the disk, before the file has its name. One that is there is read, and must be its owner's alone.
 */
export const createPrivateFile = (folder: string, name: string, text: string, bytesMax: number): PrivateText => {
  const file = path.join(folder, name)
  const found = readPrivateFile(file, bytesMax)
  if (found._tag === "Read" || fs.existsSync(file)) return found
  const temporary = `${file}.new-${Hex.encode(randomBytes(8))}`
  try {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 })
    fs.writeFileSync(temporary, text, { mode: 0o600, flag: "wx", flush: true })
    // Of two programs that begin in one folder the first gives the file its name, and the other reads it.
    const published = publishFile(temporary, file)
    fs.rmSync(temporary, { force: true })
    if (!published) return readPrivateFile(file, bytesMax)
    syncFolder(folder)
    return { _tag: "Read", text }
  } catch (error) {
    fs.rmSync(temporary, { force: true })
    return refused(`not to be made (${codeOf(error)})`, "check the disk and the rights of the folder")
  }
}
