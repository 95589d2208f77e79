/**
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), both sides, as pure steps.
 *
 *     client                                             server
 *     clientFirst      <flag>,,n=<name>,r=<nonce>   ->   serverFirst
 *     clientChallenge  <-   r=<nonce><more>,s=<salt>,i=<iterations>
 *     clientFinal      c=<flag and binding>,r=<nonce><more>,h=<hash>,p=<proof>  ->   serverFinal: Accepted
 *     clientVerify     <-   v=<signature>
 *
 * `h`, an extension attribute and required here, is the SHA-256 over both hello messages. It is part of what both proofs
 * sign: who edits a hello, or any field above, breaks the login at both ends. A client that has not reached `Ok` has not
 * spoken to its manager and must send nothing more.
 *
 * A peer's message never throws: it moves the state on or is `Refused`, after which the exchange is over. States are used
 * once and hold secrets: never log them. An unknown name is challenged like a known one, with the same work and the same
 * refusal.
 *
 * PLUS binds the login to its TLS 1.3 connection (`tls-exporter`, RFC 9266): one who ends TLS in the middle, with another
 * certificate that the client takes, has other exported bytes on either side and fails both proofs.
 */
import { Base64 } from "effect/encoding"
import { scramIterationsMax, scramIterationsMin, scramMessageCharsMax, scramNonceBytesMin } from "../Limits.ts"
import { hmacSha256, sha256, timingSafeEqual } from "../platform/Crypto.ts"
import { assume, decodeBase64, deriveKeys, isName, mockVerifier, type Verifier } from "./Credentials.ts"

/** Why an exchange ended. For logs and for the local program; a peer is told no more than that it was refused. */
export type RefusedReason =
  | "MessageTooLong"
  | "MalformedMessage"
  | "MandatoryExtension"
  | "ChannelBindingUnsupported"
  | "ChannelBindingStripped"
  | "ChannelBindingMismatch"
  | "AuthzidUnsupported"
  | "InvalidName"
  | "NonceMismatch"
  | "NonceNotExtended"
  | "IterationsOutOfBounds"
  | "HelloMissing"
  | "HelloMismatch"
  | "InvalidCredentials"
  | "ServerRefused"
  | "ServerSignatureMismatch"

export type Refused = { readonly _tag: "Refused"; readonly reason: RefusedReason }

export type ClientState =
  | {
      readonly _tag: "FirstSent"
      readonly bare: string
      readonly nonce: string
      readonly helloHash: Uint8Array
      readonly gs2: Gs2
      readonly iterationsMin: number
    }
  | { readonly _tag: "Challenged"; readonly authMessage: string; readonly withoutProof: string }
  | { readonly _tag: "FinalSent"; readonly serverSignature: Uint8Array }

export type ClientStateOf<Tag extends ClientState["_tag"]> = Extract<ClientState, { readonly _tag: Tag }>

export type ClientChallenge =
  | {
      readonly _tag: "Derive"
      readonly salt: Uint8Array
      readonly iterations: number
      readonly state: ClientStateOf<"Challenged">
    }
  | Refused

export type ClientVerdict = { readonly _tag: "Ok" } | Refused

/** `known` is false for a mock: its proof is checked all the same, and never accepted. */
export interface ServerState {
  readonly _tag: "Challenged"
  readonly verifier: Verifier
  readonly known: boolean
  readonly gs2: Gs2
  readonly nonce: string
  readonly firstMessages: string
  readonly helloHash: Uint8Array
}

export type ServerChallenge =
  | { readonly _tag: "Challenge"; readonly state: ServerState; readonly message: string }
  | Refused

export type ServerVerdict = { readonly _tag: "Accepted"; readonly name: string; readonly message: string } | Refused

export const mechanism = "SCRAM-SHA-256"
export const mechanismPlus = "SCRAM-SHA-256-PLUS"

/** What the client says about channel binding: `n` cannot, `y` can and saw no offer, `p` does, with these exported bytes. */
export type Gs2 = { readonly flag: "n" | "y" } | { readonly flag: "p=tls-exporter"; readonly binding: Uint8Array }

const gs2Header = (gs2: Gs2): string => `${gs2.flag},,`
const channelBindingInput = (gs2: Gs2): string => {
  const header = utf8.encode(gs2Header(gs2))
  if (gs2.flag !== "p=tls-exporter") return Base64.encode(header)
  const input = new Uint8Array(header.byteLength + gs2.binding.byteLength)
  input.set(header)
  input.set(gs2.binding, header.byteLength)
  return Base64.encode(input)
}

/** The best that both ends can. `binding`: this end's exported bytes, where its connection and runtime have them. */
export const chooseMechanism = (
  offered: ReadonlyArray<string>,
  binding: Uint8Array | undefined
): { readonly mechanism: string; readonly gs2: Gs2 } | undefined => {
  if (binding !== undefined && offered.includes(mechanismPlus)) {
    return { mechanism: mechanismPlus, gs2: { flag: "p=tls-exporter", binding } }
  }
  if (!offered.includes(mechanism)) return undefined
  return { mechanism, gs2: { flag: binding === undefined ? "n" : "y" } }
}

const helloHashBytes = 32
const proofBytes = 32
const utf8 = new TextEncoder()

// ---- client

/**
 * `nonce`: at least 18 fresh random bytes. `iterationsMin` raises the floor: a client that knows its key was set up with
 * 600,000 iterations need not hand a guesser a proof made with fewer. An invalid name, a short nonce or a hash of another
 * length is a defect of the caller (throws).
 */
export const clientFirst = (options: {
  readonly name: string
  readonly nonce: Uint8Array
  readonly helloHash: Uint8Array
  /** Default: no channel binding. */
  readonly gs2?: Gs2
  readonly iterationsMin?: number
}): { readonly state: ClientStateOf<"FirstSent">; readonly message: string } => {
  assume(isName(options.name), "a client has a valid name")
  const nonce = nonceText(options.nonce)
  const helloHash = checkedHelloHash(options.helloHash)
  const bare = `n=${options.name},r=${nonce}`
  const iterationsMin = Math.max(scramIterationsMin, options.iterationsMin ?? 0)
  const gs2 = options.gs2 ?? { flag: "n" }
  return { state: { _tag: "FirstSent", bare, nonce, helloHash, gs2, iterationsMin }, message: gs2Header(gs2) + bare }
}

/** `Derive` asks the caller for `saltPassword(key, salt, iterations)`, computed or cached. Never asks outside the bounds. */
export const clientChallenge = (state: ClientStateOf<"FirstSent">, serverFirst: string): ClientChallenge => {
  const parsed = parseAttributes(serverFirst, "rsi")
  if (parsed._tag === "Refused") return parsed
  const [nonce = "", saltText = "", count = ""] = parsed.values
  const salt = decodeBase64(saltText)
  if (!isNonce(nonce) || salt === undefined || !/^[1-9][0-9]*$/.test(count)) return refused("MalformedMessage")
  if (!nonce.startsWith(state.nonce)) return refused("NonceMismatch")
  if (nonce.length === state.nonce.length) return refused("NonceNotExtended")
  const iterations = Number(count)
  if (!(iterations >= state.iterationsMin && iterations <= scramIterationsMax)) return refused("IterationsOutOfBounds")
  const withoutProof = `c=${channelBindingInput(state.gs2)},r=${nonce},h=${Base64.encode(state.helloHash)}`
  const authMessage = `${state.bare},${serverFirst},${withoutProof}`
  return { _tag: "Derive", salt, iterations, state: { _tag: "Challenged", authMessage, withoutProof } }
}

export const clientFinal = (
  state: ClientStateOf<"Challenged">,
  saltedPassword: Uint8Array
): { readonly state: ClientStateOf<"FinalSent">; readonly message: string } => {
  const { clientProof, serverSignature } = proofs(saltedPassword, state.authMessage)
  return {
    state: { _tag: "FinalSent", serverSignature },
    message: `${state.withoutProof},p=${Base64.encode(clientProof)}`
  }
}

/** Extensions are refused here: nothing signs the last message. */
export const clientVerify = (state: ClientStateOf<"FinalSent">, serverFinal: string): ClientVerdict => {
  const letter = serverFinal.startsWith("e=") ? "e" : "v"
  const parsed = parseAttributes(serverFinal, letter)
  if (parsed._tag === "Refused") return parsed
  if (parsed.extensions.size > 0) return refused("MalformedMessage")
  if (letter === "e") return refused("ServerRefused")
  const signature = decodeBase64(parsed.values[0]!)
  if (signature === undefined) return refused("MalformedMessage")
  return timingSafeEqual(signature, state.serverSignature) ? { _tag: "Ok" } : refused("ServerSignatureMismatch")
}

// ---- server

/**
 * `nonce`: at least 18 fresh random bytes, never used twice: a replayed login fails on them. `mockSecret` and
 * `iterationsInUse`: see `mockVerifier`, which runs for known names too, for the sake of equal work.
 */
export const serverFirst = (options: {
  readonly clientFirst: string
  readonly lookup: (name: string) => Verifier | undefined
  readonly mockSecret: Uint8Array
  readonly iterationsInUse?: ReadonlyArray<number>
  readonly nonce: Uint8Array
  readonly helloHash: Uint8Array
  /** The mechanism that the client chose. Default: without channel binding. */
  readonly mechanism?: string
  /** The exported bytes of the connection, where this end offers PLUS. */
  readonly binding?: Uint8Array | undefined
}): ServerChallenge => {
  const serverNonce = nonceText(options.nonce)
  const helloHash = checkedHelloHash(options.helloHash)
  const header = parseGs2(options.clientFirst, options.mechanism ?? mechanism, options.binding)
  if (header._tag === "Refused") return header
  const parsed = parseAttributes(header.bare, "nr")
  if (parsed._tag === "Refused") return parsed
  const [name = "", clientNonce = ""] = parsed.values
  if (!isName(name)) return refused("InvalidName")
  if (!isNonce(clientNonce)) return refused("MalformedMessage")

  const mock = mockVerifier(name, options.mockSecret, options.iterationsInUse)
  const found = options.lookup(name)
  const verifier = found ?? mock
  const nonce = clientNonce + serverNonce
  const message = `r=${nonce},s=${Base64.encode(verifier.salt)},i=${verifier.iterations}`
  if (message.length > scramMessageCharsMax) return refused("MessageTooLong")
  const firstMessages = `${header.bare},${message}`
  const known = found !== undefined
  return {
    _tag: "Challenge",
    state: { _tag: "Challenged", verifier, known, gs2: header.gs2, nonce, firstMessages, helloHash },
    message
  }
}

/** Everything that does not depend on the key is checked first, so that it is the same for known and unknown names. */
export const serverFinal = (state: ServerState, clientFinal: string): ServerVerdict => {
  if (clientFinal.length > scramMessageCharsMax) return refused("MessageTooLong")
  const proofAt = clientFinal.lastIndexOf(",p=")
  if (proofAt < 0) return refused("MalformedMessage")
  const withoutProof = clientFinal.slice(0, proofAt)
  const proof = decodeBase64(clientFinal.slice(proofAt + ",p=".length))
  const parsed = parseAttributes(withoutProof, "cr")
  if (parsed._tag === "Refused") return parsed
  if (proof?.byteLength !== proofBytes) return refused("MalformedMessage")
  const [binding, nonce] = parsed.values
  if (binding !== channelBindingInput(state.gs2)) return refused("ChannelBindingMismatch")
  if (nonce !== state.nonce) return refused("NonceMismatch")
  const hello = parsed.extensions.get("h")
  if (hello === undefined) return refused("HelloMissing")
  if (hello !== Base64.encode(state.helloHash)) return refused("HelloMismatch")

  const check = checkProof(state.verifier, `${state.firstMessages},${withoutProof}`, proof)
  if (!check.valid || !state.known) return refused("InvalidCredentials")
  return { _tag: "Accepted", name: state.verifier.name, message: `v=${Base64.encode(check.serverSignature)}` }
}

// ---- proofs (RFC 5802, section 3)

/** The client's half: the proof that it sends, and the signature that it then insists on. */
export const proofs = (
  saltedPassword: Uint8Array,
  authMessage: string
): { readonly clientProof: Uint8Array; readonly serverSignature: Uint8Array } => {
  const { clientKey, storedKey, serverKey } = deriveKeys(saltedPassword)
  const message = utf8.encode(authMessage)
  return {
    clientProof: xor(clientKey, hmacSha256(storedKey, message)),
    serverSignature: hmacSha256(serverKey, message)
  }
}

/** The server's half. Assumes a proof of 32 bytes. The same work whether or not the proof is valid. */
export const checkProof = (
  verifier: Pick<Verifier, "storedKey" | "serverKey">,
  authMessage: string,
  proof: Uint8Array
): { readonly valid: boolean; readonly serverSignature: Uint8Array } => {
  const message = utf8.encode(authMessage)
  const clientKey = xor(proof, hmacSha256(verifier.storedKey, message))
  const serverSignature = hmacSha256(verifier.serverKey, message)
  return { valid: timingSafeEqual(sha256(clientKey), verifier.storedKey), serverSignature }
}

const xor = (a: Uint8Array, b: Uint8Array): Uint8Array => a.map((byte, index) => byte ^ b[index]!)

// ---- grammar

type Attributes = {
  readonly _tag: "Attributes"
  readonly values: ReadonlyArray<string>
  readonly extensions: ReadonlyMap<string, string>
}

/** Attributes with a meaning in RFC 5802: none of them may come a second time, or where an extension would stand. */
const assigned = "anmrcsipve"

/**
 * The attributes that `letters` names, in that order and first; then extensions, each once. Unknown optional ones are
 * left alone, as the RFC asks; `m`, which announces a mandatory one, is refused wherever it stands.
 */
const parseAttributes = (text: string, letters: string): Attributes | Refused => {
  if (text.length > scramMessageCharsMax) return refused("MessageTooLong")
  if (!/^[\x20-\x7e]+$/.test(text)) return refused("MalformedMessage")
  const values: Array<string> = []
  const extensions = new Map<string, string>()
  for (const attribute of text.split(",")) {
    if (!/^[A-Za-z]=./.test(attribute)) return refused("MalformedMessage")
    const letter = attribute[0]!
    const value = attribute.slice(2)
    if (letter === "m") return refused("MandatoryExtension")
    if (values.length < letters.length) {
      if (letter !== letters[values.length]) return refused("MalformedMessage")
      values.push(value)
    } else {
      if (assigned.includes(letter) || extensions.has(letter)) return refused("MalformedMessage")
      extensions.set(letter, value)
    }
  }
  return values.length === letters.length ? { _tag: "Attributes", values, extensions } : refused("MalformedMessage")
}

/**
 * `n,,`, `y,,` or `p=tls-exporter,,`, then the rest of client-first. `y` towards an end that offers PLUS means that
 * somebody has taken the offer away (RFC 5802, section 6).
 */
const parseGs2 = (
  text: string,
  chosen: string,
  binding: Uint8Array | undefined
): { readonly _tag: "Gs2"; readonly gs2: Gs2; readonly bare: string } | Refused => {
  if (text.length > scramMessageCharsMax) return refused("MessageTooLong")
  const [, flag, authzid = "", bare = ""] = /^(n|y|p=[A-Za-z0-9.-]+),(a=[^,]+)?,(.*)$/s.exec(text) ?? []
  if (flag === undefined) return refused("MalformedMessage")
  if (flag === "y" && binding !== undefined) return refused("ChannelBindingStripped")
  const gs2 = gs2Of(flag, chosen, binding)
  if (gs2 === undefined) return refused("ChannelBindingUnsupported")
  return authzid === "" ? { _tag: "Gs2", gs2, bare } : refused("AuthzidUnsupported")
}

const gs2Of = (flag: string, chosen: string, binding: Uint8Array | undefined): Gs2 | undefined => {
  if (chosen !== mechanismPlus) return flag === "n" || flag === "y" ? { flag } : undefined
  return flag === "p=tls-exporter" && binding !== undefined ? { flag, binding } : undefined
}

/** Printable ASCII without comma and space. */
const isNonce = (text: string): boolean => /^[\x21-\x2b\x2d-\x7e]+$/.test(text)

const nonceText = (random: Uint8Array): string => {
  assume(random.byteLength >= scramNonceBytesMin, "a nonce has at least 18 random bytes")
  return Base64.encode(random)
}

const checkedHelloHash = (hash: Uint8Array): Uint8Array => {
  assume(hash.byteLength === helloHashBytes, "the hash of the hello messages is a SHA-256")
  return hash
}

const refused = (reason: RefusedReason): Refused => ({ _tag: "Refused", reason })
