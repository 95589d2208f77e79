/**
 * The text of a file of credentials: one JSON object a line, with verifiers and never with keys.
 *
 *     {"name":"worker-1","verifier":"SCRAM-SHA-256$4096:...","roles":[{"role":"worker","queues":["images*"]}]}
 *
 * Empty lines, and lines that begin with `#`, are passed over. Whatever else is not understood is a fault, with its line:
 * a file that is half read would let in the wrong half. Pure; who reads the file looks at its mode and its size first.
 */
import { credentialsLineBytesMax, credentialsMax } from "../Limits.ts"
import { decodeVerifier, encodeVerifier, isName, printable, type Verifier } from "./Credentials.ts"
import { decodeGrants, type Grant } from "./Roles.ts"

export interface FileCredential {
  readonly verifier: Verifier
  readonly grants: ReadonlyArray<Grant>
}

export interface FileFault {
  /** From 1 on. */
  readonly line: number
  readonly field: string
  /** Printable ASCII; never a key or a verifier. */
  readonly value: string
  readonly remedy: string
}

export type DecodedFile =
  | { readonly _tag: "Decoded"; readonly credentials: ReadonlyArray<FileCredential> }
  | { readonly _tag: "Refused"; readonly fault: FileFault }

/** Assumes: a bounded text. Names are unique in what is decoded. */
export const decodeCredentials = (text: string): DecodedFile => {
  const credentials: Array<FileCredential> = []
  const lines = new Map<string, number>()
  for (const [i, line] of text.split("\n").entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const refused = (field: string, value: string, remedy: string): DecodedFile => {
      return { _tag: "Refused", fault: { line: i + 1, field, value, remedy } }
    }
    if (line.length > credentialsLineBytesMax) {
      return refused("the line", `${line.length} characters long`, `use at most ${credentialsLineBytesMax}`)
    }
    const entry = entryOf(line)
    if (entry === undefined) {
      return refused("the line", "no JSON object", "give one credential a line, as millrace key new writes it")
    }
    const secret = ["key", "authkey", "password", "secret"].find((field) => field in entry)
    if (secret !== undefined) {
      return refused(secret, "a plain key", "put the verifier there, as millrace key verifier prints it")
    }
    const unknown = Object.keys(entry).find((field) => !fields.includes(field))
    if (unknown !== undefined) return refused(`"${printable(unknown)}"`, "unknown", `use ${fields.join(", ")}`)
    const { name, roles, verifier: verifierText } = entry
    if (typeof name !== "string" || !isName(name)) {
      const value = typeof name === "string" ? `"${printable(name)}"` : "no text"
      return refused("name", value, "use 1 to 200 characters of A-Z a-z 0-9 . _ : -")
    }
    const before = lines.get(name)
    if (before !== undefined) return refused("name", `"${name}", as in line ${before}`, "give each credential its own")
    const verifier = decodeVerifier(name, typeof verifierText === "string" ? verifierText : "")
    if (verifier._tag === "Refused") {
      return refused("verifier", verifier.reason, "put there what millrace key verifier prints")
    }
    const decoded = decodeGrants(roles)
    if (decoded._tag === "Refused") {
      const { field, remedy, value } = decoded.fault
      return refused(field, value, remedy)
    }
    if (credentials.length === credentialsMax) {
      return refused(
        "the file",
        `more than ${credentialsMax} credentials`,
        "let programs with the same roles share one"
      )
    }
    lines.set(name, i + 1)
    credentials.push({ verifier: verifier.verifier, grants: decoded.grants })
  }
  return { _tag: "Decoded", credentials }
}

/** The line of one credential, without its end. */
export const encodeCredential = ({ grants, verifier }: FileCredential): string =>
  JSON.stringify({
    name: verifier.name,
    verifier: encodeVerifier(verifier),
    roles: grants.map(({ objects = [], queues = [], role }) => ({
      role,
      ...(queues.length > 0 ? { queues } : {}),
      ...(objects.length > 0 ? { objects } : {})
    }))
  })

const fields = ["name", "verifier", "roles"]

const entryOf = (line: string): Readonly<Record<string, unknown>> | undefined => {
  try {
    const value: unknown = JSON.parse(line)
    const isEntry = typeof value === "object" && value !== null && !Array.isArray(value)
    return isEntry ? Object.assign(Object.create(null), value) : undefined
  } catch {
    return undefined
  }
}
