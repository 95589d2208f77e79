import { assert, describe, it } from "@effect/vitest"
import { deriveVerifier, encodeVerifier, keyBytes } from "../../../src/auth/Credentials.ts"
import { decodeCredentials, encodeCredential } from "../../../src/auth/CredentialsFile.ts"
import * as Limits from "../../../src/Limits.ts"

const key = "a key that must not be told"
const verifierOf = (name: string) => deriveVerifier(name, keyBytes(key), new Uint8Array(16), 4_096)
const text = encodeVerifier(await verifierOf("a"))
const roles = [{ role: "worker", queues: ["images*"] }]

const line = (entry: unknown): string => JSON.stringify(entry)
const good = (name: string): string => line({ name, verifier: text, roles })

const faultOf = (file: string): string => {
  const decoded = decodeCredentials(file)
  if (decoded._tag === "Decoded") return `none in ${decoded.credentials.length}`
  const { field, line, remedy, value } = decoded.fault
  return `line ${line}: ${field} is ${value}: ${remedy}`
}

describe("a file of credentials", () => {
  it("is read as it was written, comments and empty lines passed over", async () => {
    const grants = [
      { role: "producer", queues: ["a", "b*"], objects: ["seen"] },
      { role: "observer", queues: ["*"], objects: [] }
    ] as const
    const verifier = await verifierOf("master")
    const written = encodeCredential({ verifier, grants })
    assert.notInclude(written, '"objects":[]')
    const decoded = decodeCredentials(`# who may\n\n${written}\r\n  \n${good("b")}`)
    assert(decoded._tag === "Decoded")
    assert.deepStrictEqual(decoded.credentials[0]?.grants, grants)
    assert.strictEqual(encodeVerifier(decoded.credentials[0]!.verifier), encodeVerifier(verifier))
    assert.deepStrictEqual(
      decoded.credentials.map((credential) => credential.verifier.name),
      ["master", "b"]
    )
    assert.deepStrictEqual(decodeCredentials(""), { _tag: "Decoded", credentials: [] })
  })

  it("is refused as a whole with the line, the field, the value and a remedy", () => {
    const cases: ReadonlyArray<readonly [file: string, fault: RegExp]> = [
      ["worker-1 SCRAM", /^line 1: the line is no JSON object: give one credential a line/],
      [`${good("a")}\n[]`, /^line 2: the line is no JSON object/],
      ["null", /^line 1: the line is no JSON object/],
      [`${good("a")}\n\n#\n{"name":`, /^line 4: the line is no JSON object/],
      [
        line({ name: "a", key, roles }),
        /^line 1: key is a plain key: put the verifier there, as millrace key verifier/
      ],
      [line({ name: "a", verifier: text, roles, password: key }), /^line 1: password is a plain key/],
      [line({ name: "a", verifier: text, roles, extra: 1 }), /^line 1: "extra" is unknown: use name, verifier, roles$/],
      [`{"__proto__":{"name":"a"},"verifier":"x"}`, /^line 1: "__proto__" is unknown/],
      [line({ verifier: text, roles }), /^line 1: name is no text: use 1 to 200 characters/],
      [
        line({ name: "\u001b[31m\u202e", verifier: text, roles }),
        /^line 1: name is "\\u001b\[31m\\u202e": use 1 to 200/
      ],
      [`${good("a")}\n${good("b")}\n${good("a")}`, /^line 3: name is "a", as in line 1: give each credential its own$/],
      [
        line({ name: "a", roles }),
        /^line 1: verifier is MalformedVerifier: put there what millrace key verifier prints$/
      ],
      [line({ name: "a", verifier: 7, roles }), /^line 1: verifier is MalformedVerifier/],
      [line({ name: "a", verifier: key, roles }), /^line 1: verifier is MalformedVerifier/],
      [
        line({ name: "a", verifier: text.replace("4096", "4095"), roles }),
        /^line 1: verifier is IterationsOutOfBounds/
      ],
      [line({ name: "a", verifier: text }), /^line 1: roles is missing: give a list/],
      [line({ name: "a", verifier: text, roles: [] }), /^line 1: roles is an empty list/],
      [
        line({ name: "a", verifier: text, roles: [{ role: "root", queues: ["*"] }] }),
        /^line 1: roles\[0\]\.role is "root"/
      ]
    ]
    for (const [file, fault] of cases) {
      assert.match(faultOf(file), fault)
      assert.notInclude(faultOf(file), key)
    }
  })

  it("has bounds: characters of a line, credentials", () => {
    const { credentialsLineBytesMax, credentialsMax } = Limits
    const padded = (length: number): string => `${good("a")}${" ".repeat(length - good("a").length)}`
    for (const length of [credentialsLineBytesMax - 1, credentialsLineBytesMax]) {
      assert.strictEqual(faultOf(padded(length)), "none in 1")
    }
    assert.match(
      faultOf(padded(credentialsLineBytesMax + 1)),
      /^line 1: the line is 262145 characters long: use at most/
    )
    const many = Array.from({ length: credentialsMax + 1 }, (_, i) => good(`c${i}`))
    assert.strictEqual(faultOf(many.slice(2).join("\n")), `none in ${credentialsMax - 1}`)
    assert.strictEqual(faultOf(many.slice(1).join("\n")), `none in ${credentialsMax}`)
    assert.match(faultOf(many.join("\n")), /^line 1001: the file is more than 1000 credentials/)
  })
})
