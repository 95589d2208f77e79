import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../../src/Limits.ts"
import {
  type DictChange,
  dictCursor,
  ObjectKind,
  Objects,
  type ObjectsOut,
  SetAction,
  setCursor
} from "../../../../src/model/Objects.ts"
import type { Counter } from "../../../../src/model/objects/Counter.ts"
import { Dict } from "../../../../src/model/objects/Dict.ts"
import type { SharedSet } from "../../../../src/model/objects/SharedSet.ts"
import { SharedSet as TextSet } from "../../../../src/model/objects/SharedSet.ts"
import { SipHash } from "../../../../src/model/objects/SipHash.ts"
import { Texts } from "../../../../src/model/objects/Texts.ts"
import { Code } from "../../../../src/model/Refusal.ts"
import { Session } from "../../../../src/model/Session.ts"
import { Random } from "../../random.ts"

const session = new Session(1)
const utf8 = new TextEncoder()
const text = new TextDecoder()
const bytes = (value: string): Uint8Array => utf8.encode(value)
const codeNames = Object.fromEntries(Object.entries(Code).map(([name, code]) => [code, name]))

/** Answers as text, and a log as a store would keep it: one row per change. */
class Heard implements ObjectsOut {
  readonly log: Array<(into: Objects) => void> = []
  answer = ""
  page: Uint8Array | undefined
  objectMade: ObjectsOut["objectMade"] = ({ durability, id, kind, name }) => {
    this.log.push((into) => into.restoreObject(id, name, ObjectKind[kind], durability))
  }
  setAdded: ObjectsOut["setAdded"] = ({ id }, fingerprint, key, place) => {
    const kept = fingerprint.slice()
    place.row = this.log.length + 1
    place.offset = key.byteLength
    const { offset, row } = place
    this.log.push((into) => into.restoreSetEntry(id, kept, row, offset))
  }
  setRemoved: ObjectsOut["setRemoved"] = ({ id }, fingerprint) => {
    const kept = fingerprint.slice()
    this.log.push((into) => into.restoreSetRemoval(id, kept))
  }
  counterChanged: ObjectsOut["counterChanged"] = ({ id, value, version }) => {
    this.log.push((into) => into.restoreCounter(id, value, version))
  }
  dictChanged: ObjectsOut["dictChanged"] = ({ id }, key, entry, version) => {
    if (entry === undefined) return void this.log.push((into) => into.restoreDictDeletion(id, key, version))
    const { born, value } = entry
    this.log.push((into) => into.restoreDictEntry(id, key, value, version, born))
  }
  refused: ObjectsOut["refused"] = (_, __, { code, limit, subject, value }) => {
    this.answer = `${codeNames[code]} ${subject.replace("\n", "/")} ${value} ${limit}`
  }
  objectOpened: ObjectsOut["objectOpened"] = (_, __, { id, kind }) => {
    this.answer = `${kind} ${id}`
  }
  bits: ObjectsOut["bits"] = (_, __, count, bits) => {
    this.answer = Array.from({ length: count }, (_, i) => (bits[i >> 3]! >> (i & 7)) & 1).join("")
  }
  counted: ObjectsOut["counted"] = (_, __, done, value) => {
    this.answer = `${done} ${value}`
  }
  dictEntries: ObjectsOut["dictEntries"] = (_, __, entries) => {
    this.answer = entries.map((entry) => (entry ? `${text.decode(entry.value)}@${entry.version}` : "-")).join()
  }
  dictWritten: ObjectsOut["dictWritten"] = (_, __, versions) => {
    this.answer = versions.join()
  }
  setPage: ObjectsOut["setPage"] = (_, __, set, page) => {
    this.answer = page.rows.map((row, i) => text.decode(set.texts?.read(row, page.offsets[i]!))).join()
    this.page = page.more ? setCursor(page) : undefined
  }
  dictPage: ObjectsOut["dictPage"] = (_, __, entries, more) => {
    this.answer = entries.map(({ key, value }) => `${key}=${text.decode(value)}`).join()
    this.page = more ? dictCursor(entries.at(-1)!) : undefined
  }
}

const made = (keepTexts = true) => {
  const out = new Heard()
  const objects = new Objects({ key: new Uint8Array(16).fill(3), keepTexts, out })
  objects.open(session, 0, "seen", ObjectKind.set, true, "fsync")
  objects.open(session, 0, "robots", ObjectKind.dict, true, "fsync")
  objects.open(session, 0, "pages", ObjectKind.counter, true, "fsync")
  const ask = (run: (objects: Objects) => void): string => {
    run(objects)
    return out.answer
  }
  const keys = (action: SetAction, ...names: ReadonlyArray<string>): string =>
    ask((o) => o.setKeys(session, 0, 0, action, names.map(bytes)))
  const write = (...writes: ReadonlyArray<readonly [key: string, value: string | undefined, expected?: number]>) =>
    ask((o) =>
      o.dictWrite(
        session,
        0,
        1,
        writes.map(
          ([key, value, expected]): DictChange => ({
            key,
            value: value === undefined ? undefined : bytes(value),
            expected: expected === -1 ? undefined : expected
          })
        )
      )
    )
  const get = (...names: ReadonlyArray<string>): string => ask((o) => o.dictGet(session, 0, 1, names))
  return { out, objects, ask, keys, write, get }
}

describe("shared objects", () => {
  it("are found by name, keep their kind, and are made only on request", () => {
    const { ask } = made()
    assert.strictEqual(
      ask((o) => o.open(session, 0, "seen", ObjectKind.set, false, "fsync")),
      "set 0"
    )
    assert.strictEqual(
      ask((o) => o.open(session, 0, "seen", ObjectKind.dict, true, "fsync")),
      "objectKindMismatch seen/set 0 1"
    )
    assert.strictEqual(
      ask((o) => o.open(session, 0, "none", ObjectKind.dict, false, "fsync")),
      "objectNotFound none 0 0"
    )
    assert.strictEqual(
      ask((o) => o.count(session, 0, 0, 1)),
      "objectKindMismatch seen/set 0 2"
    )
    assert.strictEqual(
      ask((o) => o.list(session, 0, 2, undefined, 1)),
      "objectKindMismatch pages/counter 2 0"
    )
    assert.strictEqual(
      ask((o) => o.setKeys(session, 0, 9, SetAction.add, [])),
      "objectNotFound #9 9 0"
    )
  })

  it("are as many as the limit says", () => {
    const { ask, objects } = made()
    for (let i = objects.all.length; i < Limits.objectsMax; i++) {
      objects.open(session, 0, `o${i}`, ObjectKind.counter, true, "fsync")
    }
    assert.strictEqual(
      ask((o) => o.open(session, 0, "more", ObjectKind.counter, true, "fsync")),
      `limitExceeded objectsMax ${Limits.objectsMax + 1} ${Limits.objectsMax}`
    )
    assert.strictEqual(
      ask((o) => o.open(session, 0, "o5", ObjectKind.counter, true, "fsync")),
      "counter 5"
    )
  })
})

describe("a set", () => {
  it("says of each key whether it was new, was there, was removed; the same key twice in one call is new once", () => {
    const { keys } = made()
    assert.strictEqual(keys(SetAction.add, "a", "b", "a", "c"), "1101")
    assert.strictEqual(keys(SetAction.has, "a", "x", "c"), "101")
    assert.strictEqual(keys(SetAction.remove, "a", "x", "a"), "100")
    assert.strictEqual(keys(SetAction.add, "a", "b"), "10")
    assert.strictEqual(keys(SetAction.add, ..."abcdefghijklmnop"), "0001111111111111")
    assert.strictEqual(keys(SetAction.add, "", ""), "10")
  })

  it("refuses a key that is too long, with all that came beside it", () => {
    const { keys, objects } = made()
    const long = "k".repeat(Limits.setKeyBytesMax + 1)
    assert.strictEqual(
      keys(SetAction.add, "a", long),
      `limitExceeded setKeyBytesMax ${Limits.setKeyBytesMax + 1} ${Limits.setKeyBytesMax}`
    )
    assert.strictEqual((objects.all[0] as SharedSet).size, 0)
    assert.strictEqual(keys(SetAction.add, long.slice(1)), "1")
  })

  it("is listed page by page, with its keys", () => {
    const { ask, keys, out } = made()
    const names = Array.from({ length: 100 }, (_, i) => `key ${i}`)
    keys(SetAction.add, ...names)
    const found: Array<string> = []
    let after: Uint8Array | undefined
    do {
      found.push(...ask((o) => o.list(session, 0, 0, after, 7)).split(","))
      after = out.page
    } while (after !== undefined)
    assert.deepStrictEqual(found.sort(), names.sort())
  })

  it("keeps its keys in memory without growing for ever when they come and go", () => {
    const random = new Random(4)
    const texts = new Texts()
    const set = new TextSet(0, "s", "memory", new SipHash(new Uint8Array(16)), texts)
    const living = new Set<string>()
    const place = { row: 0, offset: 0 }
    for (let step = 0; step < 60_000; step++) {
      const name = `https://example.com/${random.int(2_000)}`
      const key = bytes(name)
      if (living.has(name)) {
        assert.isTrue(set.remove(set.fingerprint(key)))
        living.delete(name)
      } else {
        assert.isFalse(set.has(key))
        set.insert(set.fingerprint(key), key, place)
        living.add(name)
      }
    }
    const page = set.page(undefined, 5_000)
    assert.deepStrictEqual(
      page.rows.map((row, i) => text.decode(texts.read(row, page.offsets[i]!))).sort(),
      [...living].sort()
    )
    assert.strictEqual(
      texts.bytes,
      [...living].reduce((sum, name) => sum + name.length, 0)
    )
    assert.isBelow(texts.bytesHeld, 8 * texts.bytes + 65_536)
  })
})

describe("a counter", () => {
  it("adds, answers with the sum, and never leaves the safe range", () => {
    const { ask } = made()
    const add = (by: number): string => ask((o) => o.count(session, 0, 2, by))
    assert.strictEqual(add(5), "true 5")
    assert.strictEqual(add(-7), "true -2")
    assert.strictEqual(add(0), "true -2")
    assert.strictEqual(add(Number.MAX_SAFE_INTEGER), `true ${Number.MAX_SAFE_INTEGER - 2}`)
    assert.strictEqual(add(3), "counterOverflow pages 0 0")
    assert.strictEqual(add(2), `true ${Number.MAX_SAFE_INTEGER}`)
    assert.strictEqual(add(-Number.MAX_SAFE_INTEGER), "true 0")
    assert.strictEqual(add(-Number.MAX_SAFE_INTEGER), `true ${-Number.MAX_SAFE_INTEGER}`)
    assert.strictEqual(add(-1), "counterOverflow pages 0 0")
  })

  it("is set only from the value that was expected", () => {
    const { ask, objects } = made()
    const set = (expected: number | undefined, value: number): string =>
      ask((o) => o.countSet(session, 0, 2, expected, value))
    assert.strictEqual(set(1, 9), "false 0")
    assert.strictEqual(set(0, 9), "true 9")
    assert.strictEqual(set(undefined, -3), "true -3")
    assert.strictEqual((objects.all[2] as Counter).version, 2)
  })
})

describe("a dict", () => {
  it("gives every write a version that was never given before", () => {
    const { get, write } = made()
    assert.strictEqual(write(["a", "1"], ["b", "2"]), "1,2")
    assert.strictEqual(write(["a", "3"]), "3")
    assert.strictEqual(get("a", "b", "c"), "3@3,2@2,-")
    assert.strictEqual(write(["a", undefined]), "4")
    assert.strictEqual(write(["a", undefined]), "0")
    assert.strictEqual(write(["a", "again"]), "5")
    assert.strictEqual(get("a"), "again@5")
  })

  it("writes and deletes only over the expected version, all keys of a call or none", () => {
    const { get, write } = made()
    write(["a", "1"])
    assert.strictEqual(write(["a", "2", 0]), "conflict robots/a 1 0")
    assert.strictEqual(write(["b", "1", 0], ["a", "2", 7]), "conflict robots/a 1 7")
    assert.strictEqual(get("a", "b"), "1@1,-")
    assert.strictEqual(write(["b", "1", 0], ["a", "2", 1]), "2,3")
    assert.strictEqual(write(["a", undefined, 2]), "conflict robots/a 3 2")
    assert.strictEqual(write(["a", undefined, 3]), "4")
    assert.strictEqual(write(["a", undefined, 3]), "conflict robots/a 0 3")
  })

  it("is bounded in keys and in bytes, and what is there already may still be written", () => {
    const { objects, write } = made()
    const dict = objects.all[1] as Dict
    const big = new Uint8Array(Limits.dictValueBytesMax)
    assert.match(write(["a", "x".repeat(Limits.dictValueBytesMax + 1)]), /^limitExceeded dictValueBytesMax/)
    for (let i = 0; i < Limits.dictBytesMax / Limits.dictValueBytesMax - 1; i++) dict.set(`${i}`, big)
    const room = Limits.dictBytesMax - dict.bytes
    assert.match(write(["last", "x".repeat(room - 3)]), /^limitExceeded dictBytesMax/)
    assert.strictEqual(write(["last", "x".repeat(room - 4)]), `${dict.version}`)
    assert.strictEqual(dict.bytes, Limits.dictBytesMax)
    assert.match(write(["one", "y"]), /^limitExceeded dictBytesMax/)
    assert.strictEqual(write(["0", "smaller"]), `${dict.version}`)
    const many = new Dict(9, "many", "memory")
    const nothing = new Uint8Array()
    objects.all[1] = many
    for (let i = 0; i < Limits.dictKeysMax - 1; i++) many.set(`${i}`, nothing)
    assert.match(write(["p", ""], ["q", ""]), /^limitExceeded dictKeysMax/)
    assert.strictEqual(write(["p", ""], ["0", "x"]), `${many.version - 1},${many.version}`)
    assert.match(write(["q", ""]), /^limitExceeded dictKeysMax/)
  })

  it("is listed in the order in which its keys came, each once, whatever is written meanwhile", () => {
    const random = new Random(3)
    const { objects } = made()
    const dict = objects.all[1] as Dict
    for (let i = 0; i < 1_000; i++) dict.set(`k${i}`, bytes("v"))
    const stays = Array.from({ length: 500 }, (_, i) => `k${2 * i}`)
    const found: Array<string> = []
    for (let page = dict.page(0, 30); page.length > 0; ) {
      found.push(...page.map(({ key }) => key))
      const after = page.at(-1)!.born
      for (let i = 0; i < 20; i++) dict.delete(`k${2 * random.int(500) + 1}`)
      for (let i = 0; i < 20; i++) dict.set(random.pick(stays), bytes("w"))
      for (let i = 0; i < 5; i++) dict.set(`new ${random.int(1_000)}`, bytes("n"))
      page = dict.page(after, 30)
      assert.deepStrictEqual(dict.faults(), [])
    }
    assert.strictEqual(new Set(found).size, found.length)
    assert.deepStrictEqual(
      found.filter((key) => stays.includes(key)),
      stays
    )
  })
})

describe("the log of shared objects", () => {
  const state = (objects: Objects) =>
    objects.all.map((object) => {
      if (object.kind === "counter") return [object.name, object.value, object.version]
      if (object.kind === "set") {
        const page = object.page(undefined, 10_000)
        return [object.name, [...page.fingerprints], page.rows, page.offsets]
      }
      return [object.name, object.version, object.page(0, 10_000).map((entry) => ({ ...entry }))]
    })

  it("brings back what it was told: values, versions, places and the order of listings", () => {
    const random = new Random(5)
    const { ask, keys, objects, out, write } = made(false)
    for (let step = 0; step < 3_000; step++) {
      const name = `${random.int(200)}`
      const kind = random.int(10)
      if (kind < 3) keys(SetAction.add, name, `${random.int(200)}`)
      else if (kind < 5) keys(SetAction.remove, name)
      else if (kind < 7) write([name, `v${step}`, random.chance(50) ? -1 : 0])
      else if (kind < 8) write([name, undefined])
      else ask((o) => o.count(session, 0, 2, random.int(9) - 4))
    }
    const again = new Objects({ key: new Uint8Array(16).fill(3), keepTexts: false, out: new Heard() })
    for (const change of out.log) change(again)
    assert.deepStrictEqual(state(again), state(objects))
    assert.strictEqual(again.find("pages"), again.all[2])
  })

  it("tells living records from dead ones, and an entry that was appended anew from its old record", () => {
    const { ask, keys, objects, out, write } = made(false)
    keys(SetAction.add, "a", "b")
    keys(SetAction.remove, "b")
    const set = objects.all[0] as SharedSet
    const fingerprint = set.fingerprint(bytes("a")).slice()
    assert.isTrue(objects.setEntryLives(0, fingerprint, 4, 1))
    assert.isFalse(objects.setEntryLives(0, fingerprint, 5, 1))
    assert.isFalse(objects.setEntryLives(0, set.fingerprint(bytes("b")).slice(), 5, 1))
    objects.setEntryMoved(0, fingerprint, 77, 12)
    assert.isFalse(objects.setEntryLives(0, fingerprint, 4, 1))
    assert.isTrue(objects.setEntryLives(0, fingerprint, 77, 12))
    write(["k", "1"], ["k", "2"])
    assert.deepStrictEqual([objects.dictEntryLives(1, "k", 1), objects.dictEntryLives(1, "k", 2)], [false, true])
    write(["k", undefined])
    assert.deepStrictEqual([objects.dictEntryLives(1, "k", 2), objects.dictDeletionLives(1, 3)], [false, true])
    ask((o) => o.count(session, 0, 2, 1))
    assert.deepStrictEqual([objects.counterLives(2, 1), objects.counterLives(2, 0)], [true, false])
    // The cleaner drops what is dead; a version given out must not be given again all the same.
    const again = new Objects({ key: new Uint8Array(16).fill(3), keepTexts: false, out: new Heard() })
    for (const change of [...out.log.slice(0, 3), out.log.at(-2)!]) change(again)
    assert.strictEqual((again.all[1] as Dict).version, 3)
  })
})
