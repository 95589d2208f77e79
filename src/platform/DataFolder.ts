/**
 * The folder of a store, and its small files: made private, looked at before use, written at a place, filled, measured.
 *
 * Everything is synchronous and throws the errors of `node:fs`. A database file is never opened here: closing a second
 * descriptor of one drops the locks that this process holds on it.
 */
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { performance } from "node:perf_hooks"
import process from "node:process"
import { randomBytes } from "./Crypto.ts"

export const joinPath = (directory: string, name: string): string => path.join(directory, name)

export const resolvePath = (directory: string): string => path.resolve(directory)

/** The code of a failure of the system, such as ENOSPC; empty when it has none. */
export const systemCode = (error: unknown): string =>
  typeof error === "object" && error !== null && "code" in error ? String(error.code) : ""

const ownedByAnother = (uid: number): boolean => {
  const own = process.geteuid?.()
  return own !== undefined && uid !== own && uid !== 0
}

/**
 * Makes the folder (mode 0700) when it is not there. Returns why it must not be used, if so: it is no folder, or it or a
 * link to it belongs to another user. The modes of a folder that was there are left as they are.
 */
export const prepareFolder = (directory: string): string | undefined => {
  const link = fs.lstatSync(directory, { throwIfNoEntry: false })
  if (link?.isSymbolicLink() && ownedByAnother(link.uid)) return "it is a link that belongs to another user"
  const found = fs.statSync(directory, { throwIfNoEntry: false })
  if (found === undefined) {
    if (link !== undefined) return "it is a link to nothing"
    fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
    return undefined
  }
  if (!found.isDirectory()) return "it is not a folder"
  return ownedByAnother(found.uid) ? "it belongs to another user" : undefined
}

/** Whether others than the owner may look into the folder. */
export const openToOthers = (directory: string): boolean =>
  process.platform !== "win32" && (fs.statSync(directory).mode & 0o077) !== 0

/** Why a file of the store must not be used; undefined when it is a file of ours, or not there. Makes its mode 0600. */
export const fileFault = (file: string): string | undefined => {
  const found = fs.lstatSync(file, { throwIfNoEntry: false })
  if (found === undefined) return undefined
  if (!found.isFile()) return found.isSymbolicLink() ? "it is a link" : "it is not a file"
  if (ownedByAnother(found.uid)) return "it belongs to another user"
  if ((found.mode & 0o077) !== 0 && process.platform !== "win32") fs.chmodSync(file, 0o600)
  return undefined
}

export const exists = (file: string): boolean => fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined

export const fileBytes = (file: string): number => fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0

export const remove = (file: string): void => fs.rmSync(file, { force: true })

export const listFolder = (directory: string): ReadonlyArray<string> => fs.readdirSync(directory)

/** An empty file of mode 0600, which must not be there yet. */
export const createFile = (file: string): void => fs.closeSync(fs.openSync(file, "wx", 0o600))

/** Gives a finished file its name, unless the name is taken: false then. */
export const publishFile = (from: string, to: string): boolean => {
  try {
    fs.linkSync(from, to)
    fs.rmSync(from)
    return true
  } catch (error) {
    if (systemCode(error) === "EEXIST") return false
    if (exists(to)) return false
    // A file system without links. Two managers that begin in one new folder at the same moment are not told apart.
    fs.renameSync(from, to)
    return true
  }
}

/** Makes the names in a folder durable. Systems that cannot (Windows) do it by themselves. */
export const syncFolder = (directory: string): void => {
  if (process.platform === "win32") return
  const descriptor = fs.openSync(directory, "r")
  try {
    fs.fsyncSync(descriptor)
  } finally {
    fs.closeSync(descriptor)
  }
}

export const readSmallFile = (file: string, bytesMax: number): Uint8Array | undefined => {
  if (!exists(file)) return undefined
  const descriptor = fs.openSync(file, "r")
  try {
    const bytes = new Uint8Array(bytesMax)
    return bytes.subarray(0, fs.readSync(descriptor, bytes, 0, bytesMax, 0))
  } finally {
    fs.closeSync(descriptor)
  }
}

/** A file that is written in place, a few bytes at a time. */
export interface SlotFile {
  readonly write: (bytes: Uint8Array, at: number) => void
  readonly sync: () => void
  readonly close: () => void
}

export const openSlots = (file: string): SlotFile => {
  const descriptor = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600)
  return {
    write: (bytes, at) => void fs.writeSync(descriptor, bytes, 0, bytes.byteLength, at),
    sync: () => fs.fsyncSync(descriptor),
    close: () => fs.closeSync(descriptor)
  }
}

/** Who runs here, for the next one who finds the folder taken. No lock: when it cannot be written, nobody is named. */
export const writeHolder = (file: string): void => {
  const text = `${JSON.stringify({ pid: process.pid, host: os.hostname() })}\n`
  try {
    fs.rmSync(file, { force: true })
    fs.writeFileSync(file, text, { mode: 0o600, flag: "wx" })
  } catch {
    // A full disk must not keep a manager from giving out what is stored.
  }
}

/** `process 12 on host`, or that it is not known. */
export const readHolder = (file: string): string => {
  try {
    const { host, pid } = JSON.parse(new TextDecoder().decode(readSmallFile(file, 1_024))) as Record<string, unknown>
    if (Number.isSafeInteger(pid) && typeof host === "string" && /^[\w.-]{1,255}$/.test(host)) {
      return `process ${pid} on ${host}`
    }
  } catch {
    // Written at this moment, or by something else.
  }
  return "an unknown process"
}

/** Whether the file has this size in real bytes. */
export const isFilled = (file: string, bytes: number): boolean => {
  const found = fs.lstatSync(file, { throwIfNoEntry: false })
  return found?.isFile() === true && found.size === bytes && found.blocks * 512 >= bytes
}

/** Writes a file of real bytes that no file system can shorten, and syncs it. False, and no file, when it does not fit. */
export const fillFile = (file: string, bytes: number): boolean => {
  let descriptor: number | undefined
  try {
    fs.rmSync(file, { force: true })
    descriptor = fs.openSync(file, "wx", 0o600)
    const noise = randomBytes(Math.min(bytes, 1_024 * 1_024))
    for (let at = 0; at < bytes; ) {
      at += fs.writeSync(descriptor, noise, 0, Math.min(noise.byteLength, bytes - at), at)
    }
    fs.fsyncSync(descriptor)
    fs.closeSync(descriptor)
    return true
  } catch {
    if (descriptor !== undefined) fs.closeSync(descriptor)
    fs.rmSync(file, { force: true })
    return false
  }
}

/** Bytes that this user may still write there. Infinite where the system does not say. */
export const freeBytes = (directory: string): number => {
  try {
    const { bavail, bsize } = fs.statfsSync(directory)
    return bavail * bsize
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

/** `freeBytes`, asked again only after `ms` or when `wrote` has heard of `bytes`. */
export const sampledFreeBytes = (
  directory: string,
  ms: number,
  bytes: number
): { readonly free: () => number; readonly wrote: (bytes: number) => void } => {
  let free = 0
  let written = bytes
  let until = 0
  return {
    free: () => {
      const now = performance.now()
      if (written >= bytes || now >= until) {
        free = freeBytes(directory)
        written = 0
        until = now + ms
      }
      return free
    },
    wrote: (more) => {
      written += more
    }
  }
}
