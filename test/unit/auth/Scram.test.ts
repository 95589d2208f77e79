import { assert, describe, it } from "@effect/vitest"
import { decodeBase64, deriveKeys, deriveVerifier, keyBytes, saltPassword } from "../../../src/auth/Credentials.ts"
import {
  checkProof,
  chooseMechanism,
  clientChallenge,
  clientFinal,
  clientFirst,
  clientVerify,
  mechanism,
  mechanismPlus,
  proofs,
  type ServerChallenge,
  type ServerVerdict,
  serverFinal,
  serverFirst
} from "../../../src/auth/Scram.ts"
import { hmacSha256, sha256 } from "../../../src/platform/Crypto.ts"

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64")
const utf8 = new TextEncoder()
const filled = (size: number, value: number): Uint8Array => new Uint8Array(size).fill(value)

const helloHash = sha256(utf8.encode("client hello, server hello"))
const otherHash = sha256(utf8.encode("client hello, edited server hello"))
const mockSecret = filled(32, 7)
const clientNonce = filled(18, 1)
const serverNonce = filled(18, 2)
const salt = filled(16, 9)

const known = await deriveVerifier("crawler", keyBytes("pencil"), salt, 4_096)
const salted = await saltPassword(keyBytes("pencil"), salt, 4_096)
const wrongSalted = await saltPassword(keyBytes("pencils"), salt, 4_096)
const verifiers = new Map([[known.name, known]])

const begin = (name = "crawler", hash = helloHash) => clientFirst({ name, nonce: clientNonce, helloHash: hash })

const challenge = (message: string, nonce = serverNonce, hash = helloHash): ServerChallenge =>
  serverFirst({
    clientFirst: message,
    lookup: (name) => verifiers.get(name),
    mockSecret,
    nonce,
    helloHash: hash
  })

const verdict = (outcome: { readonly _tag: string; readonly reason?: string }): string => outcome.reason ?? outcome._tag

const expectTag = <A extends { readonly _tag: string }, Tag extends A["_tag"]>(
  value: A,
  tag: Tag
): Extract<A, { readonly _tag: Tag }> => {
  assert.strictEqual(value._tag, tag, JSON.stringify(value))
  return value as Extract<A, { readonly _tag: Tag }>
}

/** One exchange, with a place to edit each message on its way. */
const exchange = (options: {
  readonly name?: string
  readonly saltedPassword?: Uint8Array
  readonly clientHash?: Uint8Array
  readonly edit?: (message: string, index: number) => string
}) => {
  const edit = options.edit ?? ((message) => message)
  const first = begin(options.name, options.clientHash)
  const challenged = challenge(edit(first.message, 0))
  if (challenged._tag === "Refused") return { server: challenged, client: undefined }
  const derive = clientChallenge(first.state, edit(challenged.message, 1))
  if (derive._tag === "Refused") return { server: undefined, client: derive }
  const final = clientFinal(derive.state, options.saltedPassword ?? salted)
  const server = serverFinal(challenged.state, edit(final.message, 2))
  if (server._tag === "Refused") return { server, client: undefined }
  return { server, client: clientVerify(final.state, edit(server.message, 3)) }
}

/** An exchange up to client-final, for tests that edit what follows. */
const untilFinal = (name = "crawler", saltedPassword = salted) => {
  const first = begin(name)
  const challenged = expectTag(challenge(first.message), "Challenge")
  const derive = expectTag(clientChallenge(first.state, challenged.message), "Derive")
  return { first, challenged, derive, final: clientFinal(derive.state, saltedPassword) }
}

/** A client-final over `withoutProof` with a proof that fits it: what a client with the right key might say. */
const signed = (state: { readonly firstMessages: string }, withoutProof: string): string =>
  `${withoutProof},p=${base64(proofs(salted, `${state.firstMessages},${withoutProof}`).clientProof)}`

describe("the example of RFC 7677", () => {
  const authMessage = [
    "n=user,r=rOprNGfwEbeRWgbNEkqO",
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
  ].join(",")
  const proof = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
  const signature = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
  const exampleSalt = decodeBase64("W22ZaJ0SNY7soEsUEjb6gQ==")!

  it("gives the client's proof and the server's signature", async () => {
    const answer = proofs(await saltPassword(keyBytes("pencil"), exampleSalt, 4_096), authMessage)
    assert.strictEqual(base64(answer.clientProof), proof)
    assert.strictEqual(base64(answer.serverSignature), signature)
  })

  it("is accepted by a server that holds the verifier only", async () => {
    const verifier = await deriveVerifier("user", keyBytes("pencil"), exampleSalt, 4_096)
    const check = checkProof(verifier, authMessage, decodeBase64(proof)!)
    assert.isTrue(check.valid)
    assert.strictEqual(base64(check.serverSignature), signature)
    assert.isFalse(checkProof(verifier, authMessage + ",h=x", decodeBase64(proof)!).valid)
  })

  it("is challenged by a client state and a nonce of the same texts", () => {
    const state = {
      _tag: "FirstSent",
      bare: "n=user,r=rOprNGfwEbeRWgbNEkqO",
      nonce: "rOprNGfwEbeRWgbNEkqO",
      helloHash,
      gs2: { flag: "n" },
      iterationsMin: 4_096
    } as const
    const derive = expectTag(clientChallenge(state, authMessage.split(",").slice(2, 5).join(",")), "Derive")
    assert.strictEqual(base64(derive.salt), "W22ZaJ0SNY7soEsUEjb6gQ==")
    assert.strictEqual(derive.iterations, 4_096)
    assert.strictEqual(derive.state.authMessage, `${authMessage},h=${base64(helloHash)}`)
  })
})

describe("a login", () => {
  it("with the right key is accepted at both ends, under the client's name", () => {
    const { server, client } = exchange({})
    assert.strictEqual(expectTag(server!, "Accepted").name, "crawler")
    assert.deepStrictEqual(client, { _tag: "Ok" })
  })

  it("says exactly these messages", () => {
    const seen: Array<string> = []
    exchange({ edit: (message) => seen[seen.push(message) - 1]! })
    const nonces = `${base64(clientNonce)}${base64(serverNonce)}`
    assert.strictEqual(seen[0], `n,,n=crawler,r=${base64(clientNonce)}`)
    assert.strictEqual(seen[1], `r=${nonces},s=${base64(salt)},i=4096`)
    assert.match(seen[2]!, /,p=[A-Za-z0-9+/]{43}=$/)
    assert.strictEqual(seen[2]!.split(",p=")[0], `c=biws,r=${nonces},h=${base64(helloHash)}`)
    assert.match(seen[3]!, /^v=[A-Za-z0-9+/]{43}=$/)
  })

  it("with a wrong key is refused", () => {
    assert.strictEqual(verdict(exchange({ saltedPassword: wrongSalted }).server!), "InvalidCredentials")
  })

  it("with an unknown name is challenged alike, always alike, and refused alike", () => {
    const shape = (message: string) => message.replace(/s=[^,]+/, (found) => `s=${found.length}`)
    const stranger = untilFinal("stranger", wrongSalted)
    const member = untilFinal("crawler", wrongSalted)
    assert.strictEqual(shape(stranger.challenged.message), shape(member.challenged.message))
    assert.strictEqual(untilFinal("stranger").challenged.message, stranger.challenged.message)
    assert.notStrictEqual(untilFinal("stranger2").challenged.message, stranger.challenged.message)
    const refusal: ServerVerdict = { _tag: "Refused", reason: "InvalidCredentials" }
    assert.deepStrictEqual(serverFinal(stranger.challenged.state, stranger.final.message), refusal)
    assert.deepStrictEqual(serverFinal(member.challenged.state, member.final.message), refusal)
  })

  it("with an unknown name is refused even with a proof that fits the mock", () => {
    const { challenged, final } = untilFinal("stranger")
    const { storedKey, serverKey } = known
    const state = { ...challenged.state, verifier: { ...challenged.state.verifier, storedKey, serverKey } }
    assert.strictEqual(verdict(serverFinal({ ...state, known: true }, final.message)), "Accepted")
    assert.strictEqual(verdict(serverFinal(state, final.message)), "InvalidCredentials")
  })

  it("whose hello was edited on either side is refused (M4)", () => {
    assert.strictEqual(verdict(exchange({ clientHash: otherHash }).server!), "HelloMismatch")
    const hide = (message: string, index: number) =>
      index === 2 ? message.replace(base64(otherHash), base64(helloHash)) : message
    assert.strictEqual(verdict(exchange({ clientHash: otherHash, edit: hide }).server!), "InvalidCredentials")
  })

  it("that was recorded is refused on replay (M7)", () => {
    const { first, final } = untilFinal()
    const fresh = expectTag(challenge(first.message, filled(18, 3)), "Challenge")
    assert.strictEqual(verdict(serverFinal(fresh.state, final.message)), "NonceMismatch")
    const renamed = final.message.replace(base64(serverNonce), base64(filled(18, 3)))
    assert.strictEqual(verdict(serverFinal(fresh.state, renamed)), "InvalidCredentials")
  })

  it("with what a stolen verifier holds is refused (M6)", () => {
    const { challenged, derive } = untilFinal()
    const secrets = [known.storedKey, known.serverKey, known.salt, sha256(known.storedKey), filled(32, 0)]
    for (const secret of secrets) {
      const { message } = clientFinal(derive.state, secret)
      assert.strictEqual(verdict(serverFinal(challenged.state, message)), "InvalidCredentials")
    }
    // a client key is what hashes to StoredKey; who has the verifier can sign, and has nothing to put under the signature
    const authMessage = utf8.encode(derive.state.authMessage)
    const signature = hmacSha256(known.storedKey, authMessage)
    for (const clientKey of [...secrets.filter((secret) => secret.byteLength === 32), filled(32, 255)]) {
      const proof = base64(signature.map((byte, index) => byte ^ clientKey[index]!))
      const message = `${derive.state.withoutProof},p=${proof}`
      assert.strictEqual(verdict(serverFinal(challenged.state, message)), "InvalidCredentials")
    }
    // the same forgery with the true client key is what the server accepts, so the loop above tests what it says
    const proof = base64(signature.map((byte, index) => byte ^ deriveKeys(salted).clientKey[index]!))
    assert.strictEqual(verdict(serverFinal(challenged.state, `${derive.state.withoutProof},p=${proof}`)), "Accepted")
  })
})

describe("a client", () => {
  const first = begin()
  const nonces = `${base64(clientNonce)}${base64(serverNonce)}`
  const answer = (message: string): string => verdict(clientChallenge(first.state, message))

  it("refuses a nonce that is not its own, extended (M5)", () => {
    assert.strictEqual(answer(`r=${nonces},s=${base64(salt)},i=4096`), "Derive")
    assert.strictEqual(answer(`r=${base64(clientNonce)}x,s=${base64(salt)},i=4096`), "Derive")
    assert.strictEqual(answer(`r=${base64(clientNonce)},s=${base64(salt)},i=4096`), "NonceNotExtended")
    assert.strictEqual(answer(`r=${base64(serverNonce)},s=${base64(salt)},i=4096`), "NonceMismatch")
    assert.strictEqual(answer(`r=${nonces.slice(1)},s=${base64(salt)},i=4096`), "NonceMismatch")
    assert.strictEqual(answer(`r=${base64(clientNonce).slice(0, -1)},s=${base64(salt)},i=4096`), "NonceMismatch")
  })

  it("asks for no derivation outside the bounds (M5)", () => {
    const expected: ReadonlyArray<readonly [string, string]> = [
      ["1", "IterationsOutOfBounds"],
      ["4095", "IterationsOutOfBounds"],
      ["4096", "Derive"],
      ["4097", "Derive"],
      ["999999", "Derive"],
      ["1000000", "Derive"],
      ["1000001", "IterationsOutOfBounds"],
      ["2147483647", "IterationsOutOfBounds"],
      ["9".repeat(400), "IterationsOutOfBounds"],
      ["0", "MalformedMessage"],
      ["-4096", "MalformedMessage"],
      ["+4096", "MalformedMessage"],
      ["04096", "MalformedMessage"],
      ["4096.0", "MalformedMessage"],
      ["4e5", "MalformedMessage"],
      ["0x2000", "MalformedMessage"],
      [" 4096", "MalformedMessage"],
      ["", "MalformedMessage"]
    ]
    for (const [iterations, outcome] of expected) {
      assert.strictEqual(answer(`r=${nonces},s=${base64(salt)},i=${iterations}`), outcome, iterations)
    }
  })

  it("refuses iterations below the floor it was given, which cannot lower the general one", () => {
    const floor = (iterationsMin: number, iterations: number): string => {
      const { state } = clientFirst({ name: "crawler", nonce: clientNonce, helloHash, iterationsMin })
      return verdict(clientChallenge(state, `r=${nonces},s=${base64(salt)},i=${iterations}`))
    }
    assert.strictEqual(floor(600_000, 599_999), "IterationsOutOfBounds")
    assert.strictEqual(floor(600_000, 600_000), "Derive")
    assert.strictEqual(floor(1, 4_095), "IterationsOutOfBounds")
  })

  it("refuses missing, repeated, reordered and mandatory attributes", () => {
    const [r, s, i] = [`r=${nonces}`, `s=${base64(salt)}`, "i=4096"]
    assert.strictEqual(answer(`${r},${s},${i},x=later`), "Derive")
    assert.strictEqual(answer(`m=ext,${r},${s},${i}`), "MandatoryExtension")
    assert.strictEqual(answer(`${r},${s},${i},m=ext`), "MandatoryExtension")
    const malformed = [
      "",
      ",",
      `${r},${s}`,
      `${r},${i}`,
      `${s},${i}`,
      `${s},${r},${i}`,
      `${r},${i},${s}`,
      `${r},${r},${s},${i}`,
      `${r},${s},${s},${i}`,
      `${r},${s},${i},${i}`,
      `${r},${s},${i},${s}`,
      `${r},${s},${i},x=1,x=2`,
      `${r},${s},${i},`,
      `${r},,${s},${i}`,
      `${r},${s},${i},x`,
      `${r},${s},${i},x=`,
      `${r},${s},${i},1=x`,
      `${r},s=,${i}`,
      `${r},s=????,${i}`,
      `${r},s=AR==,${i}`,
      `${r},s=AQ,${i}`,
      `r= ${nonces},${s},${i}`,
      `r=${nonces} ,${s},${i}`,
      `r=${nonces}é,${s},${i}`,
      `${r},${s},${i},x=\u007f`,
      `${r},${s},${i}\n`
    ]
    for (const message of malformed) assert.strictEqual(answer(message), "MalformedMessage", JSON.stringify(message))
  })

  it("refuses a message above 900 characters", () => {
    const base = `r=${nonces},s=${base64(salt)},i=4096,x=`
    const padded = (length: number) => base + "x".repeat(length - base.length)
    assert.deepStrictEqual([899, 900, 901].map(padded).map(answer), ["Derive", "Derive", "MessageTooLong"])
  })

  it("accepts only the server's signature (M5)", () => {
    const { challenged, final } = untilFinal()
    const { message } = expectTag(serverFinal(challenged.state, final.message), "Accepted")
    const judge = (text: string): string => verdict(clientVerify(final.state, text))
    assert.strictEqual(judge(message), "Ok")
    assert.strictEqual(judge(`v=${base64(filled(32, 0))}`), "ServerSignatureMismatch")
    assert.strictEqual(judge(`v=${base64(filled(31, 0))}`), "ServerSignatureMismatch")
    assert.strictEqual(judge("e=invalid-proof"), "ServerRefused")
    assert.strictEqual(judge("m=x"), "MandatoryExtension")
    for (const text of ["", "v=", "e=", "v", "ok", `${message},x=1`, `${message},${message}`, `e=x,${message}`]) {
      assert.strictEqual(judge(text), "MalformedMessage", text)
    }
    assert.strictEqual(judge(message.slice(0, -1)), "MalformedMessage")
  })

  it("does not accept a manager that has no verifier for its key", () => {
    const { derive, final } = untilFinal()
    const forged = proofs(wrongSalted, derive.state.authMessage).serverSignature
    assert.strictEqual(verdict(clientVerify(final.state, `v=${base64(forged)}`)), "ServerSignatureMismatch")
  })

  it("does not begin with an invalid name, a short nonce or a hash of another length", () => {
    for (const name of ["", "a,b", "a=b", "x".repeat(201)]) assert.throws(() => begin(name), RangeError)
    assert.throws(() => clientFirst({ name: "a", nonce: filled(17, 1), helloHash }), RangeError)
    assert.throws(() => clientFirst({ name: "a", nonce: clientNonce, helloHash: filled(0, 1) }), RangeError)
  })
})

describe("a login bound to its TLS connection", () => {
  const binding = filled(32, 5)
  const login = (options: {
    readonly offered?: ReadonlyArray<string>
    readonly clientBinding?: Uint8Array | undefined
    readonly serverBinding?: Uint8Array | undefined
    readonly mechanism?: string
  }): string => {
    const choice = chooseMechanism(options.offered ?? [mechanismPlus, mechanism], options.clientBinding)
    if (choice === undefined) return "NoMechanism"
    const first = clientFirst({ name: "crawler", nonce: clientNonce, helloHash, gs2: choice.gs2 })
    const challenged = serverFirst({
      clientFirst: first.message,
      lookup: (name) => verifiers.get(name),
      mockSecret,
      nonce: serverNonce,
      helloHash,
      mechanism: options.mechanism ?? choice.mechanism,
      binding: options.serverBinding
    })
    if (challenged._tag === "Refused") return challenged.reason
    const derive = expectTag(clientChallenge(first.state, challenged.message), "Derive")
    const final = clientFinal(derive.state, salted)
    const server = serverFinal(challenged.state, final.message)
    return server._tag === "Refused" ? server.reason : verdict(clientVerify(final.state, server.message))
  }

  it("is accepted when both ends export the same bytes", () => {
    assert.strictEqual(login({ clientBinding: binding, serverBinding: binding }), "Ok")
  })

  it("is refused when somebody ended TLS in between", () => {
    const other = filled(32, 6)
    assert.strictEqual(login({ clientBinding: binding, serverBinding: other }), "ChannelBindingMismatch")
  })

  it("is refused when the offer was taken away from a client that can", () => {
    const stripped = { offered: [mechanism], clientBinding: binding, serverBinding: binding }
    assert.strictEqual(login(stripped), "ChannelBindingStripped")
  })

  it("goes without where one end cannot, and where the manager does not offer it", () => {
    assert.strictEqual(login({ serverBinding: binding }), "Ok")
    assert.strictEqual(login({ offered: [mechanism], clientBinding: binding }), "Ok")
    assert.strictEqual(login({ offered: ["SCRAM-SHA-1"] }), "NoMechanism")
    assert.strictEqual(login({ offered: [mechanismPlus] }), "NoMechanism")
  })

  it("is refused when the flag does not fit the mechanism", () => {
    const fits = { clientBinding: binding, serverBinding: binding }
    assert.strictEqual(login({ ...fits, mechanism }), "ChannelBindingUnsupported")
    assert.strictEqual(login({ serverBinding: binding, mechanism: mechanismPlus }), "ChannelBindingUnsupported")
    assert.strictEqual(login({ clientBinding: binding }), "ChannelBindingUnsupported")
  })
})

describe("a server, at client-first", () => {
  const answer = (message: string): string => verdict(challenge(message))

  it("takes clients without channel binding and refuses the rest of GS2", () => {
    assert.strictEqual(answer("n,,n=crawler,r=abc"), "Challenge")
    assert.strictEqual(answer("y,,n=crawler,r=abc"), "Challenge")
    assert.strictEqual(answer("p=tls-exporter,,n=crawler,r=abc"), "ChannelBindingUnsupported")
    assert.strictEqual(answer("n,a=admin,n=crawler,r=abc"), "AuthzidUnsupported")
    assert.strictEqual(answer("p=tls-exporter,a=admin,n=crawler,r=abc"), "ChannelBindingUnsupported")
  })

  it("refuses missing, repeated, reordered and mandatory attributes", () => {
    assert.strictEqual(answer("n,,n=crawler,r=abc,x=later"), "Challenge")
    assert.strictEqual(answer("n,,m=ext,n=crawler,r=abc"), "MandatoryExtension")
    assert.strictEqual(answer("n,,n=crawler,r=abc,m=ext"), "MandatoryExtension")
    for (const name of ["a=2Cb", "a b", "x".repeat(201), "a/b"]) {
      assert.strictEqual(answer(`n,,n=${name},r=abc`), "InvalidName", name)
    }
    const malformed = [
      "",
      "n",
      "n,",
      "n,,",
      "n=crawler,r=abc",
      "N,,n=crawler,r=abc",
      "x,,n=crawler,r=abc",
      "p=,,n=crawler,r=abc",
      "n,b=x,n=crawler,r=abc",
      "n,a=,n=crawler,r=abc",
      "n,,,n=crawler,r=abc",
      "n,,n=crawler",
      "n,,r=abc",
      "n,,r=abc,n=crawler",
      "n,,n=crawler,n=crawler,r=abc",
      "n,,n=crawler,r=abc,r=abc",
      "n,,n=crawler,r=abc,n=admin",
      "n,,n=,r=abc",
      "n,,n=crawler,r=",
      "n,,n=crawler,r=a b",
      "n,,n=crawler,r=abc,",
      "n,,n=crawler,r=abc\n",
      "n,,n=cräwler,r=abc",
      "n,,n=crawler\u0000,r=abc"
    ]
    for (const message of malformed) assert.strictEqual(answer(message), "MalformedMessage", JSON.stringify(message))
  })

  it("refuses a message above 900 characters, and one that would need a longer answer", () => {
    const base = "n,,n=crawler,r=abc,x="
    const padded = (length: number) => base + "x".repeat(length - base.length)
    assert.deepStrictEqual([899, 900, 901].map(padded).map(answer), ["Challenge", "Challenge", "MessageTooLong"])
    const overhead = expectTag(challenge("n,,n=crawler,r=a"), "Challenge").message.length - 1
    const nonced = (length: number) => `n,,n=crawler,r=${"x".repeat(length - overhead)}`
    assert.deepStrictEqual([899, 900, 901].map(nonced).map(answer), ["Challenge", "Challenge", "MessageTooLong"])
  })

  it("does not begin with a short nonce of its own or a hash of another length", () => {
    assert.throws(() => challenge("n,,n=crawler,r=abc", filled(17, 1)), RangeError)
    assert.throws(() => challenge("n,,n=crawler,r=abc", serverNonce, filled(31, 1)), RangeError)
  })
})

describe("a server, at client-final", () => {
  const { challenged, final } = untilFinal()
  const { state } = challenged
  const answer = (message: string): string => verdict(serverFinal(state, message))
  const r = `r=${state.nonce}`
  const h = `h=${base64(helloHash)}`

  it("refuses a hello hash that is missing, repeated or different, even under a fitting proof", () => {
    assert.strictEqual(answer(signed(state, `c=biws,${r},${h}`)), "Accepted")
    assert.strictEqual(answer(signed(state, `c=biws,${r}`)), "HelloMissing")
    assert.strictEqual(answer(signed(state, `c=biws,${r},h=${base64(otherHash)}`)), "HelloMismatch")
    assert.strictEqual(answer(signed(state, `c=biws,${r},${h.replace("=", "==")}`)), "HelloMismatch")
    assert.strictEqual(answer(signed(state, `c=biws,${r},${h.slice(0, -1)}`)), "HelloMismatch")
    assert.strictEqual(answer(signed(state, `c=biws,${r},${h},${h}`)), "MalformedMessage")
    assert.strictEqual(answer(signed(state, `c=biws,${h},${r}`)), "MalformedMessage")
    assert.strictEqual(answer(signed(state, `${h},c=biws,${r}`)), "MalformedMessage")
  })

  it("refuses a GS2 header other than the one the client began with", () => {
    assert.strictEqual(answer(signed(state, `c=eSws,${r},${h}`)), "ChannelBindingMismatch")
    assert.strictEqual(answer(signed(state, `c=biwsAA==,${r},${h}`)), "ChannelBindingMismatch")
    const stripped = (message: string, index: number) => (index === 0 ? message.replace("n,,", "y,,") : message)
    assert.strictEqual(verdict(exchange({ edit: stripped }).server!), "ChannelBindingMismatch")
    const offered = expectTag(challenge(begin().message.replace("n,,", "y,,")), "Challenge")
    assert.strictEqual(verdict(serverFinal(offered.state, signed(offered.state, `c=eSws,${r},${h}`))), "Accepted")
  })

  it("refuses another nonce, even under a fitting proof", () => {
    assert.strictEqual(answer(signed(state, `c=biws,${r}x,${h}`)), "NonceMismatch")
    assert.strictEqual(answer(signed(state, `c=biws,${r.slice(0, -1)},${h}`)), "NonceMismatch")
  })

  it("refuses missing, repeated, reordered and mandatory attributes, even under a fitting proof", () => {
    assert.strictEqual(answer(signed(state, `c=biws,${r},${h},x=later`)), "Accepted")
    assert.strictEqual(answer(signed(state, `c=biws,${r},${h},m=ext`)), "MandatoryExtension")
    assert.strictEqual(answer(signed(state, `m=ext,c=biws,${r},${h}`)), "MandatoryExtension")
    const proof = final.message.slice(final.message.lastIndexOf(",p="))
    const malformed = [
      "",
      ",p=",
      proof,
      proof.slice(1),
      `c=biws,${r},${h}`,
      `c=biws,${r},${h},p=`,
      `c=biws,${r},${h},p=AAAA`,
      `c=biws,${r},${h}${proof.slice(0, -1)}`,
      `c=biws,${r},${h}${proof},x=1`,
      `c=biws,${r},${h}${proof}${proof}`,
      `c=biws${proof},${r},${h}`,
      signed(state, `${r},c=biws,${h}`),
      signed(state, `c=biws,c=biws,${r},${h}`),
      signed(state, `c=biws,${r},${h},${r}`),
      signed(state, `c=biws,${h}`),
      signed(state, `c=biws,${r},${h},v=x`),
      signed(state, `c=biws,${r},${h},x=é`)
    ]
    for (const message of malformed) assert.strictEqual(answer(message), "MalformedMessage", JSON.stringify(message))
  })

  it("refuses a message above 900 characters", () => {
    const base = `c=biws,${r},${h},x=`
    const proofChars = 3 + 44
    const padded = (length: number) => signed(state, base + "x".repeat(length - base.length - proofChars))
    const messages = [899, 900, 901].map(padded)
    assert.deepStrictEqual(
      messages.map((message) => message.length),
      [899, 900, 901]
    )
    assert.deepStrictEqual(messages.map(answer), ["Accepted", "Accepted", "MessageTooLong"])
  })
})

describe("messages damaged on their way", () => {
  /** mulberry32: small, seeded, good enough to choose damage. */
  const random = (seed: number) => () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }

  const alphabet = [
    ..."nrsicpvemhaxyAZ059+/=,,,=== .-_:%\u0000\n\u007fé😀",
    "n,,",
    ",m=x",
    ",x=1",
    "==",
    "i=1",
    "\ud800"
  ]

  const damage = (message: string, next: () => number): string => {
    const at = (length: number) => Math.floor(next() * length)
    const some = () => alphabet[at(alphabet.length)]!
    const [from, to] = [at(message.length + 1), at(message.length + 1)].sort((a, b) => a - b) as [number, number]
    const attributes = message.split(",")
    switch (at(9)) {
      case 0:
        return message.slice(0, from)
      case 1:
        return message.slice(from)
      case 2:
        return message.slice(0, from) + message.slice(to)
      case 3:
        return message.slice(0, from) + some() + message.slice(from)
      case 4:
        return message.slice(0, from) + some() + message.slice(from + 1)
      case 5:
        return message.slice(0, to) + message.slice(from)
      case 6: {
        attributes.splice(at(attributes.length), 0, attributes[at(attributes.length)]!)
        return attributes.join(",")
      }
      case 7:
        return attributes.toSorted(() => next() - 0.5).join(",")
      default:
        return Array.from({ length: at(1_200) }, some).join("")
    }
  }

  it("never throw and never authenticate", () => {
    let damaged = 0
    for (let seed = 0; seed < 40_000; seed++) {
      const next = random(seed)
      const target = seed % 4
      let changed = false
      const edit = (message: string, index: number): string => {
        if (index !== target) return message
        let text = message
        for (let times = 1 + Math.floor(next() * 3); times > 0; times--) text = damage(text, next)
        changed = text !== message
        return text
      }
      const { server, client } = exchange({ edit })
      if (!changed) continue
      damaged++
      const context = `seed ${seed}: ${JSON.stringify({ server, client })}`
      assert.notStrictEqual(client?._tag, "Ok", context)
      if (target < 3) assert.notStrictEqual(server?._tag, "Accepted", context)
    }
    assert.isAbove(damaged, 35_000)
  })

  it("never authenticate with any single character changed, removed or added (M4)", () => {
    const originals: Array<string> = []
    assert.strictEqual(exchange({ edit: (message) => originals[originals.push(message) - 1]! }).client?._tag, "Ok")
    for (const [target, original] of originals.entries()) {
      for (let at = 0; at <= original.length; at++) {
        const [before, here, after] = [original.slice(0, at), original.slice(at, at + 1), original.slice(at + 1)]
        const flipped = here === "" ? "" : String.fromCharCode(here.charCodeAt(0) ^ 1)
        const swapped = here === here.toLowerCase() ? here.toUpperCase() : here.toLowerCase()
        for (const text of [
          before + after,
          before + flipped + after,
          before + swapped + after,
          before + "A" + here + after
        ]) {
          if (text === original) continue
          const { server, client } = exchange({ edit: (message, index) => (index === target ? text : message) })
          assert.notStrictEqual(client?._tag, "Ok", text)
          if (target < 3) assert.notStrictEqual(server?._tag, "Accepted", text)
        }
      }
    }
  })
})
