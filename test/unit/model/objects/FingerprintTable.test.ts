import { assert, describe, it } from "@effect/vitest"
import { FingerprintTable, offsetMax, rowMax } from "../../../../src/model/objects/FingerprintTable.ts"
import { SipHash } from "../../../../src/model/objects/SipHash.ts"
import { Random } from "../../random.ts"

const hash = new SipHash(new Uint8Array(16).fill(7))
const bytes = new Uint8Array(4)

const fingerprintOf = (n: number): Uint32Array => {
  new DataView(bytes.buffer).setUint32(0, n)
  hash.of(bytes)
  return hash.words
}

const textOf = (words: Uint32Array): string => words.join()

/** All entries, page by page; `between` runs after every page. */
const listed = (
  table: FingerprintTable,
  pageItems: number,
  between: () => void = () => {}
): Array<readonly [fingerprint: string, row: number, offset: number]> => {
  const found: Array<readonly [string, number, number]> = []
  let after: Uint32Array | undefined
  for (;;) {
    const page = table.page(after, pageItems)
    for (let i = 0; i < page.count; i++) {
      found.push([textOf(page.fingerprints.subarray(4 * i, 4 * i + 4)), page.rows[i]!, page.offsets[i]!])
    }
    if (!page.more) return found
    after = page.fingerprints.slice(4 * (page.count - 1), 4 * page.count)
    between()
  }
}

describe("a table of fingerprints", () => {
  it("answers as a map does, through growth, splits and deletions", () => {
    const random = new Random(1)
    const table = new FingerprintTable()
    const reference = new Map<number, number>()
    const range = 40_000
    for (let step = 0; step < 90_000; step++) {
      const n = random.int(range)
      const kind = random.int(10)
      // It fills, then it empties, and in between it does both.
      if (kind < (step < 60_000 ? 6 : 2)) {
        assert.strictEqual(table.add(fingerprintOf(n), step, n), !reference.has(n))
        if (!reference.has(n)) reference.set(n, step)
      } else if (kind < 8) {
        assert.strictEqual(table.delete(fingerprintOf(n)), reference.delete(n))
      } else if (kind === 8) {
        const there = table.find(fingerprintOf(n))
        assert.strictEqual(there ? table.row : undefined, reference.get(n))
        if (there) assert.strictEqual(table.offset, n)
      } else {
        assert.strictEqual(table.move(fingerprintOf(n), step, n), reference.has(n))
        if (reference.has(n)) reference.set(n, step)
      }
      if (step % 15_000 === 0) assert.deepStrictEqual(table.faults(), [])
    }
    assert.deepStrictEqual(table.faults(), [])
    assert.strictEqual(table.size, reference.size)
    assert.isAbove(table.size, 10_000)
    const expected = [...reference].map(([n, row]) => `${textOf(fingerprintOf(n))} ${row} ${n}`)
    assert.deepStrictEqual(
      listed(table, 999)
        .map(([words, row, offset]) => `${words} ${row} ${offset}`)
        .sort(),
      expected.sort()
    )
    for (const n of reference.keys()) assert.isTrue(table.delete(fingerprintOf(n)))
    assert.strictEqual(table.size, 0)
    assert.deepStrictEqual(table.faults(), [])
  })

  it("keeps apart what differs in the last bit only, and fills where everything crowds in one place", () => {
    const table = new FingerprintTable()
    const words = new Uint32Array([0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0])
    // One first word: no split can part them.
    for (let n = 0; n < 10_000; n++) {
      words[3] = (n * 7_919) % 10_000
      assert.isTrue(table.add(words, n, 0))
    }
    for (let n = 0; n < 10_000; n += 50) {
      words[3] = n
      assert.isTrue(table.has(words))
    }
    words[3] = 10_000
    assert.isFalse(table.has(words))
    words.fill(0)
    words[3] = 1
    assert.isTrue(table.add(words, 5, 6))
    assert.deepStrictEqual(table.faults(), [])
    assert.deepStrictEqual(listed(table, 1)[0], ["0,0,0,1", 5, 6])
  })

  it("knows places up to the largest, and no larger ones are promised", () => {
    const table = new FingerprintTable()
    assert.isTrue(table.add(fingerprintOf(1), rowMax, offsetMax))
    assert.isTrue(table.add(fingerprintOf(2), 2 ** 32, 0))
    assert.isTrue(table.find(fingerprintOf(1)))
    assert.deepStrictEqual([table.row, table.offset], [rowMax, offsetMax])
    assert.isTrue(table.find(fingerprintOf(2)))
    assert.deepStrictEqual([table.row, table.offset], [2 ** 32, 0])
    assert.deepStrictEqual([rowMax, offsetMax], [2 ** 40 - 1, 2 ** 24 - 1])
  })

  it("a listing shows once what was there all the time, whatever comes and goes between its pages", () => {
    const random = new Random(2)
    const table = new FingerprintTable()
    const stays = new Set<string>()
    for (let n = 0; n < 8_000; n++) {
      table.add(fingerprintOf(n), n, 0)
      if (n % 2 === 0) stays.add(textOf(fingerprintOf(n)))
    }
    let fresh = 100_000
    const found = listed(table, 100, () => {
      // Enough for segments to grow and to split under the reader.
      for (let i = 0; i < 150; i++) table.add(fingerprintOf(fresh++), 1, 0)
      for (let i = 0; i < 100; i++) table.delete(fingerprintOf(2 * random.int(4_000) + 1))
    })
    const texts = found.map(([words]) => words)
    assert.strictEqual(new Set(texts).size, texts.length, "nothing is listed twice")
    assert.deepStrictEqual(texts.filter((words) => stays.has(words)).sort(), [...stays].sort())
    assert.isAbove(table.size, 20_000)
    assert.deepStrictEqual(table.faults(), [])
  })

  it("takes about 30 bytes an entry, at whatever size it is", () => {
    const table = new FingerprintTable()
    for (let n = 0; n < 300_000; n++) {
      table.add(fingerprintOf(n), n, 0)
      if (n > 50_000 && n % 10_000 === 0) assert.isBelow(table.bytes / table.size, 70)
    }
    assert.isBelow(table.bytes / table.size, 40)
  })
})
