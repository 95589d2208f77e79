import { assert, describe, it } from "@effect/vitest"
import { pack, unpack } from "msgpackr"
import * as Limits from "../../../src/Limits.ts"
import { Malformed, Reader, Writer } from "../../../src/wire/Bytes.ts"
import { Random } from "../random.ts"

type Value = null | boolean | number | string | Uint8Array | ReadonlyArray<Value>

const boundaries = [0, 1, 15, 16, 23, 31, 32, 2 ** 7, 2 ** 8, 2 ** 16, 2 ** 24, 2 ** 31, 2 ** 32, 2 ** 52]
  .flatMap((n) => [n - 1, n, n + 1])
  .filter((n) => n >= 0)
  .concat(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER - 1)

const letters = [
  "a",
  "\u007f",
  "\u0080",
  "é",
  "\u07ff",
  "\u0800",
  "痛",
  "\uffff",
  "\u{10000}",
  "😀",
  "\u0000",
  "\ufeff"
]

const randomValue = (random: Random, depth: number): Value => {
  switch (random.int(depth > 3 ? 5 : 6)) {
    case 0:
      return null
    case 1:
      return random.chance(50)
    case 2:
      return random.chance(50) ? random.pick(boundaries) : Math.floor(random.next() * 2 ** random.int(53))
    case 3:
      return Array.from({ length: random.int(random.pick([5, 40, 300])) }, () => random.pick(letters)).join("")
    case 4:
      return random.bytes(random.pick([0, 1, 5, 255, 256, 300]))
    default:
      return Array.from({ length: random.int(random.pick([3, 18])) }, () => randomValue(random, depth + 1))
  }
}

const write = (w: Writer, value: Value): void => {
  if (value === null) w.nil()
  else if (typeof value === "boolean") w.bool(value)
  else if (typeof value === "number") w.uint(value)
  else if (typeof value === "string") w.str(value)
  else if (value instanceof Uint8Array) w.bin(value)
  else {
    w.array(value.length)
    for (const item of value) write(w, item)
  }
}

/** The reader is told what comes next, as by a grammar. */
const read = (r: Reader, like: Value): Value => {
  if (like === null) return r.nil() ? null : "no nil"
  if (typeof like === "boolean") return r.bool()
  if (typeof like === "number") return r.uint()
  if (typeof like === "string") return r.str(1_000_000)
  if (like instanceof Uint8Array) return Uint8Array.from(r.bin(1_000_000))
  const length = r.array(1_000)
  return Array.from({ length }, (_, i) => read(r, like[i] ?? null))
}

const written = (value: Value): Uint8Array => {
  const w = new Writer(1)
  write(w, value)
  return w.bytes.slice(0, w.position)
}

const plain = (value: unknown): unknown => {
  if (typeof value === "bigint") return Number(value)
  if (value instanceof Uint8Array) return Uint8Array.from(value)
  return Array.isArray(value) ? value.map(plain) : value
}

const malformed = (bytes: ReadonlyArray<number> | Uint8Array, use: (r: Reader) => unknown, said: RegExp): void => {
  const reader = new Reader(Uint8Array.from(bytes))
  try {
    use(reader)
  } catch (error) {
    assert.instanceOf(error, Malformed)
    return assert.match(error.message, said)
  }
  assert.fail(`accepted ${Array.from(bytes.slice(0, 12)).join(" ")}`)
}

describe("bytes", () => {
  it("what is written is read again: boundary integers, every UTF-8 width, nesting", () => {
    const random = new Random(5)
    const values: Array<Value> = [...boundaries, ...letters]
    for (const size of [31, 32, 84, 85, 255, 256, 21_845, 21_846, 65_535, 65_536]) {
      values.push("x".repeat(size), "痛".repeat(size), new Uint8Array(size))
    }
    for (const length of [15, 16, 65_535, 65_536]) values.push(new Array<Value>(length).fill(1))
    for (let i = 0; i < 5_000; i++) values.push(randomValue(random, 0))
    for (const value of values) {
      const bytes = written(value)
      const reader = new Reader(bytes)
      if (Array.isArray(value) && value.length > 1_000) {
        assert.strictEqual(reader.array(65_536), value.length)
        continue
      }
      assert.deepStrictEqual(read(reader, value), value)
      assert.isTrue(reader.done)
      const skipper = new Reader(bytes)
      skipper.skip(1)
      assert.strictEqual(skipper.position, bytes.byteLength)
    }
    console.log(`bytes: ${values.length} values`)
  })

  it("msgpackr reads what we write, and we read what it writes", () => {
    const random = new Random(6)
    for (let i = 0; i < 3_000; i++) {
      const value = randomValue(random, 0)
      assert.deepStrictEqual(plain(unpack(written(value))), value)
      const big = JSON.stringify(value, (_, item) => (typeof item === "number" && item >= 2 ** 32 ? "big" : item))
      // Above 2^32 msgpackr writes floats, which are outside the subset.
      if (!big.includes('"big"')) {
        assert.deepStrictEqual(read(new Reader(Uint8Array.from(pack(value))), value), value)
      }
    }
  })

  it("a lone surrogate becomes the replacement character, not broken UTF-8", () => {
    assert.strictEqual(new Reader(written("a\ud800b")).str(100), "a\ufffdb")
  })

  it("an array whose length comes last is an array", () => {
    const w = new Writer(1)
    const at = w.openArray()
    for (let i = 0; i < 20; i++) w.uint(i)
    w.closeArray(at, 20)
    assert.deepStrictEqual(unpack(w.bytes.slice(0, w.position)), [...Array(20).keys()])
  })

  it("every other type byte is refused by every reader", () => {
    const readers: ReadonlyArray<readonly [(r: Reader) => unknown, RegExp, (byte: number) => boolean]> = [
      [(r) => r.bool(), /boolean/, (b) => b === 0xc2 || b === 0xc3],
      [(r) => r.uint(), /unsigned/, (b) => b < 0x80 || (b >= 0xcc && b <= 0xcf)],
      [(r) => r.array(99), /array/, (b) => (b >= 0x90 && b <= 0x9f) || b === 0xdc || b === 0xdd],
      [(r) => r.bin(99), /binary/, (b) => b >= 0xc4 && b <= 0xc6],
      [(r) => r.str(99), /string/, (b) => (b >= 0xa0 && b <= 0xbf) || (b >= 0xd9 && b <= 0xdb)]
    ]
    for (const [use, said, legal] of readers) {
      malformed([], use, /cut short/)
      for (let byte = 0; byte < 256; byte++) if (!legal(byte)) malformed([byte, 0, 0, 0, 0, 0, 0, 0, 0], use, said)
    }
    for (const byte of [0xc1, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xd0, 0xd3, 0xd4, 0xd8, 0xde, 0xdf, 0xe0, 0xff, 0x80]) {
      malformed([byte, 0, 0, 0, 0, 0, 0, 0, 0], (r) => r.skip(1), /string/)
    }
  })

  it("what is cut short is refused at every length", () => {
    const random = new Random(7)
    for (let i = 0; i < 300; i++) {
      const value = [randomValue(random, 0), 70_000, "long enough to have a length byte of its own"]
      const bytes = written(value)
      for (const cut of [0, 1, random.int(bytes.byteLength), bytes.byteLength - 1]) {
        malformed(bytes.subarray(0, cut), (r) => read(r, value), /cut short|longer than its frame/)
        malformed(bytes.subarray(0, cut), (r) => r.skip(1), /cut short|longer than its frame/)
      }
    }
  })

  it("integers above 2^53-1, or above what the grammar allows, are refused", () => {
    malformed([0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0], (r) => r.uint(), /above 2\^53-1/)
    malformed(new Array<number>(9).fill(0xff).with(0, 0xcf), (r) => r.uint(), /above 2\^53-1/)
    assert.strictEqual(new Reader(Uint8Array.from([0xcf, 0, 0x1f, 255, 255, 255, 255, 255, 255])).uint(), 2 ** 53 - 1)
    assert.deepStrictEqual(
      [99, 100].map((n) => new Reader(written(n)).uint(100)),
      [99, 100]
    )
    malformed(written(101), (r) => r.uint(100), /101 is above 100/)
  })

  it("strings and binaries end at their limit", () => {
    for (const size of [9, 10]) {
      assert.strictEqual(new Reader(written("x".repeat(size))).str(10).length, size)
      assert.strictEqual(new Reader(written(new Uint8Array(size))).bin(10).byteLength, size)
      assert.strictEqual(new Reader(written(new Array<Value>(size).fill(0))).array(10), size)
    }
    malformed(written("x".repeat(11)), (r) => r.str(10), /11 bytes, at most 10/)
    malformed(written("痛".repeat(4)), (r) => r.str(10), /12 bytes, at most 10/)
    malformed(written(new Uint8Array(11)), (r) => r.bin(10), /11 bytes, at most 10/)
    malformed(written(new Array<Value>(11).fill(0)), (r) => r.array(10), /11 elements, at most 10/)
  })

  it("strings that are not UTF-8 are refused", () => {
    for (const bytes of [[0x80], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80], [0xe7, 0x97], [0xff]]) {
      malformed([0xa0 | bytes.length, ...bytes], (r) => r.str(99), /not UTF-8/)
    }
  })

  it("a length that lies is refused before anything is made of it", () => {
    const huge = [255, 255, 255, 255]
    const before = process.memoryUsage().arrayBuffers
    for (let i = 0; i < 10_000; i++) {
      malformed([0xdd, ...huge, 1], (r) => r.array(2 ** 32), /longer than its frame/)
      malformed([0xc6, ...huge, 1], (r) => r.bin(2 ** 32), /longer than its frame/)
      malformed([0xdb, ...huge, 1], (r) => r.str(2 ** 32), /longer than its frame/)
      malformed([0xdd, ...huge, 1], (r) => r.skip(1), /at most|longer than its frame/)
    }
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 64 * 1_048_576)
  })

  it("passes over values nested 32 deep and not 33", () => {
    const nested = (depth: number): Uint8Array => Uint8Array.from([...new Array<number>(depth).fill(0x91), 0xc0])
    new Reader(nested(Limits.nestingDepthMax)).skip(1)
    malformed(nested(Limits.nestingDepthMax + 1), (r) => r.skip(1), /too deep/)
    malformed(nested(100_000), (r) => r.skip(1), /too deep/)
  })

  it("a nil is taken only where there is one", () => {
    const reader = new Reader(Uint8Array.from([0xc0, 5]))
    assert.isTrue(reader.nil())
    assert.isFalse(reader.nil())
    assert.strictEqual(reader.uintOrNil(), 5)
    assert.isFalse(reader.nil())
  })
})
