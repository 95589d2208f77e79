/**
 * `docs/protocol.md` says what the code does: every byte example, table and number on it is compared with the source,
 * and its session is played against a real manager.
 *
 * After a change of meaning, `UPDATE_EXAMPLES=1 vitest run test/unit/docs/protocol.test.ts` writes the hex anew.
 */
import { writeFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { unpackMultiple } from "msgpackr"
import { deriveKeys, deriveVerifier, keyBytes, saltPassword } from "../../../src/auth/Credentials.ts"
import {
  type ObjectAction,
  objectActions,
  type QueueAction,
  queueActions,
  roles,
  rolesForObject,
  rolesForQueue
} from "../../../src/auth/Roles.ts"
import * as Scram from "../../../src/auth/Scram.ts"
import { facts } from "../../../src/Errors.ts"
import * as Limits from "../../../src/Limits.ts"
import { Core } from "../../../src/manager/Core.ts"
import { FactKind } from "../../../src/model/Explain.ts"
import * as Policy from "../../../src/model/Policy.ts"
import { Code } from "../../../src/model/Refusal.ts"
import { PutStatus } from "../../../src/model/Session.ts"
import { Outcome, Reason } from "../../../src/model/Task.ts"
import { sha256 } from "../../../src/platform/Crypto.ts"
import type { Connection } from "../../../src/platform/Network.ts"
import { Reader } from "../../../src/wire/Bytes.ts"
import * as Client from "../../../src/wire/ClientMessages.ts"
import * as Manager from "../../../src/wire/ManagerMessages.ts"
import { ClientType, ManagerType } from "../../../src/wire/Vocabulary.ts"
import {
  bodies,
  decoded,
  encoded,
  examples,
  type Frame,
  type Meaning,
  messages,
  page,
  pagePath,
  printExample,
  printPage,
  table,
  transcript
} from "./examples.ts"

if (process.env["UPDATE_EXAMPLES"] === "1") writeFileSync(pagePath, printPage())

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** A number as the page writes it: `1,024`, `-`, `2^53-1`. */
const numberOf = (text: string): number =>
  text === "2^53-1" ? Number.MAX_SAFE_INTEGER : Number(text.replaceAll(",", ""))

const rangeOf = (text: string): readonly [number, number] => {
  const [min = "", max = ""] = text.split("..")
  return [numberOf(min), numberOf(max)]
}

const checkFrame = (frame: Frame): void => {
  assert.isNotEmpty(frame.meanings, "an example says what it means")
  assert.deepStrictEqual(decoded(frame.side, frame.bytes), frame.meanings)
  assert.strictEqual(hex(encoded(frame.side, frame.meanings)), hex(frame.bytes))
  // Any MessagePack library reads it, and sees as many elements as the table of the message has.
  const arrays = bodies(frame.bytes).flatMap((body) => unpackMultiple(body) as ReadonlyArray<ReadonlyArray<unknown>>)
  assert.strictEqual(arrays.length, frame.meanings.length)
  for (const array of arrays) {
    const documented = messages.find(({ type }) => type === array[0])
    assert.isDefined(documented)
    assert.isAtLeast(array.length - 1, documented!.needed, documented!.word)
    assert.isAtMost(array.length - 1, documented!.elements.length, documented!.word)
  }
}

describe("byte examples of docs/protocol.md", () => {
  it("are many, each in a block that this test understands, and every message has one", () => {
    assert.isAtLeast(examples.length, 15)
    assert.strictEqual(page.match(/^```frame/gm)?.length, examples.length)
    assert.strictEqual(page.match(/^```transcript/gm)?.length, 1)
    const fences = [...page.matchAll(/^```(\S*)/gm)].map(([, word]) => word)
    assert.sameMembers([...new Set(fences)], ["", "frame", "transcript"])
    const shown = examples.flatMap(({ meanings, side }) => meanings.map(({ type }) => `${side} ${type}`))
    for (const word of Object.keys(ClientType)) assert.include(shown, `client ${word}`)
    for (const word of Object.keys(ManagerType)) assert.include(shown, `manager ${word}`)
  })

  for (const example of examples) {
    it(`${example.side} ${example.name}`, () => {
      checkFrame(example)
      assert.strictEqual(example.text, printExample(example.side, example.meanings))
    })
  }

  it("the login is one: every value follows from the key, the nonces and the hellos", async () => {
    const one = (side: string, type: string): Meaning =>
      examples.flatMap((e) => (e.side === side ? e.meanings : [])).find((meaning) => meaning.type === type)!
    const bodyOf = (side: string): Uint8Array =>
      examples.find((e) => e.side === side && e.meanings[0]?.type === "hello")!.bytes.subarray(4)
    const range = (first: number, size: number): Uint8Array => Uint8Array.from({ length: size }, (_, i) => first + i)
    const helloHash = sha256(Buffer.concat([bodyOf("client"), bodyOf("manager")]))
    const key = keyBytes("correct horse battery staple")
    const verifier = await deriveVerifier("default", key, range(0x40, 16), 4_096)
    const first = Scram.clientFirst({ name: "default", nonce: range(0, 18), helloHash })
    assert.strictEqual(one("client", "authFirst")["message"], first.message)
    const challenge = Scram.serverFirst({
      clientFirst: first.message,
      lookup: () => verifier,
      mockSecret: range(0, 32),
      nonce: range(0x80, 18),
      helloHash
    })
    assert(challenge._tag === "Challenge")
    assert.strictEqual(one("manager", "authChallenge")["message"], challenge.message)
    const step = Scram.clientChallenge(first.state, challenge.message)
    assert(step._tag === "Derive")
    const salted = await saltPassword(key, step.salt, step.iterations)
    const final = Scram.clientFinal(step.state, salted)
    assert.strictEqual(one("client", "authFinal")["message"], final.message)
    const accepted = Scram.serverFinal(challenge.state, final.message)
    assert(accepted._tag === "Accepted")
    assert.strictEqual(one("manager", "authOk")["message"], accepted.message)
    const { clientKey, serverKey, storedKey } = deriveKeys(salted)
    const { clientProof, serverSignature } = Scram.proofs(salted, step.state.authMessage)
    const values = Object.fromEntries(table("## 6. Login").map(([name, value]) => [name, value]))
    assert.deepStrictEqual(values, {
      "hello hash": hex(helloHash),
      SaltedPassword: hex(salted),
      ClientKey: hex(clientKey),
      StoredKey: hex(storedKey),
      ServerKey: hex(serverKey),
      "client proof": hex(clientProof),
      "server signature": hex(serverSignature)
    })
  })
})

describe("the session of docs/protocol.md", () => {
  it("decodes, and is the login of section 6 before anything else", () => {
    assert.isAtLeast(transcript.length, 20)
    for (const frame of transcript) checkFrame(frame)
    const login = examples.filter(({ meanings }) => /^(hello|auth)/.test(meanings[0]?.type ?? ""))
    assert.deepStrictEqual(
      transcript.slice(0, 6).map(({ bytes }) => hex(bytes)),
      login.map(({ bytes }) => hex(bytes))
    )
  })

  it("is what a manager answers", async () => {
    const endless = {
      alarm: () => {},
      store: undefined,
      durability: "memory",
      log: () => {},
      failed: () => {}
    } as const
    const core = new Core({
      queues: [],
      identity: { instance: new Uint8Array(8), epoch: 1 },
      host: { now: () => 1_800_000_000_000, ...endless }
    })
    const heard: Array<Meaning> = []
    let closed = false
    const connection: Connection = {
      peer: "test",
      write: (bytes) => void heard.push(...decoded("manager", bytes)),
      pendingBytes: () => 0,
      pause: () => {},
      resume: () => {},
      close: () => {
        closed = true
      },
      destroy: () => {}
    }
    // A connection in this process is trusted: after hello it goes on with the session.
    const handler = core.accept(connection, undefined)
    handler.onData(transcript[0]!.bytes.slice())
    heard.length = 0
    for (const frame of transcript.slice(6)) {
      if (frame.side === "client") {
        assert.isEmpty(heard, "everything that the manager said is on the page")
        handler.onData(frame.bytes.slice())
        await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
        continue
      }
      const expected = frame.meanings
      // Token and instance are random.
      const said = heard.splice(0, expected.length).map((meaning, i) => ({
        ...meaning,
        ...(meaning.type === "sessionOpened"
          ? { session: expected[i]?.["session"], instance: expected[i]?.["instance"] }
          : {})
      }))
      assert.deepStrictEqual(said as ReadonlyArray<Meaning>, expected)
    }
    assert.isEmpty(heard)
    assert.isTrue(closed)
  })
})

describe("tables of docs/protocol.md", () => {
  it("name every message by its number, and no other", () => {
    const ours = [...Object.entries(ClientType), ...Object.entries(ManagerType)]
    assert.deepStrictEqual(
      messages.map(({ type, word }) => [word, type] as const),
      ours
    )
    for (const { elements, word } of messages) {
      assert.deepStrictEqual([...new Set(elements)], elements, word)
    }
  })

  it("say how many elements a message needs: one fewer is malformed, one more is passed over", () => {
    for (const { bytes, meanings, side } of [...examples, ...transcript]) {
      const decode = side === "client" ? Client.decode : Manager.decode
      if (meanings.length > 1 || bytes[4]! > 0x9e) continue
      const body = bytes.slice(4)
      const { elements, needed } = messages.find(({ type }) => type === body[1])!
      const has = (body[0]! & 0x0f) - 1
      if (has === needed) {
        const shorter = body.slice()
        shorter[0]!--
        assert.throws(() => decode(new Reader(shorter)), /elements|unknown/, meanings[0]?.type)
      }
      if (has < elements.length) continue
      const longer = new Uint8Array([...body, 0xc0])
      longer[0]!++
      const reader = new Reader(longer)
      assert.strictEqual(decode(reader).type, body[1], meanings[0]?.type)
      assert.isTrue(reader.done)
    }
  })

  it("name the message that each state takes", () => {
    const rows = table("## 4. States of a connection")
    const states = ["hello", "challenge", "proof", "session", "open"]
    assert.deepStrictEqual(
      rows.map(([message, ...cells]) => [message, states.filter((_, i) => cells[i] === "yes").join()]),
      [
        ["hello", "hello"],
        ["authFirst", "challenge"],
        ["authFinal", "proof"],
        ["sessionOpen", "session"],
        ["every other", "open"]
      ]
    )
  })

  it("list every code with its number, and what the error says of fault and outcome", () => {
    const rows = table("### Codes")
    assert.deepStrictEqual(Object.fromEntries(rows.map(([code, name]) => [name, Number(code)])), Code)
    for (const [code, name, where, fault, outcome, error] of rows) {
      const fact = facts[error as keyof typeof facts]
      assert.isDefined(fact, name)
      assert.deepStrictEqual([fault, outcome], [fact.fault, fact.outcome], name)
      assert.strictEqual(/^(connection)$/.test(where!), Number(code) >= 64, name)
    }
  })

  it("say of each role what the manager lets it do", () => {
    const rows = table("### What a role may do")
    assert.deepStrictEqual(
      rows.map(([of, action]) => `${of} ${action}`),
      [...queueActions.map((action) => `queue ${action}`), ...objectActions.map((action) => `object ${action}`)]
    )
    for (const [of, action, , ...marks] of rows) {
      const permitted = roles.filter((_, i) => marks[i] === "yes")
      const expected = of === "queue" ? rolesForQueue(action as QueueAction) : rolesForObject(action as ObjectAction)
      assert.deepStrictEqual([...permitted], [...expected], `${of} ${action}`)
      assert.isTrue(marks.every((mark) => mark === "yes" || mark === "-"))
    }
  })

  it("quote limits as they are", () => {
    const rows = table("### Numbers")
    const limits: Readonly<Record<string, number>> = { ...Limits }
    assert.isAtLeast(rows.length, 40)
    for (const [name, value] of rows) {
      assert.strictEqual(numberOf(value!), limits[name!], name)
    }
  })

  it("list the numbers of a policy in their order, with range and default", () => {
    assert.deepStrictEqual(
      table("### Policy numbers").map(([i, field, range, value]) => [
        Number(i),
        field,
        ...rangeOf(range!),
        numberOf(value!)
      ]),
      Policy.ranges.map(([field, min, max], i) => [i, field, min, max, Policy.defaults[field]])
    )
  })

  it("list put statuses, reasons and outcome kinds with their numbers", () => {
    const listed = (heading: string) => Object.fromEntries(table(heading).map(([n, name]) => [name, Number(n)]))
    assert.deepStrictEqual(listed("### Put statuses"), PutStatus)
    assert.deepStrictEqual(listed("### Reasons"), Reason)
    assert.deepStrictEqual(listed("### Outcome kinds"), Outcome)
    assert.deepStrictEqual(listed("### Kinds of facts"), FactKind)
  })

  it("list the counts of a queue in the order in which they travel", () => {
    const example = examples.find(({ meanings }) => meanings[0]?.type === "stats" && "queues" in meanings[0])!
    const [stats] = example.meanings[0]!["queues"] as ReadonlyArray<object>
    assert.deepStrictEqual(
      table("### The counts of a queue").map(([, name]) => name),
      Object.keys(stats!)
    )
    const [array] = unpackMultiple(example.bytes.subarray(4)) as ReadonlyArray<readonly [number, number, unknown[][]]>
    assert.deepStrictEqual(array![2][0], Object.values(stats!))
  })

  it("use no line that is wider than a screen, examples aside", () => {
    const prose = page.replaceAll(/^```(frame|transcript)[\s\S]*?^```$/gm, "").split("\n")
    for (const line of prose.filter((line) => !line.startsWith("|"))) assert.isAtMost(line.length, 140, line)
  })
})
