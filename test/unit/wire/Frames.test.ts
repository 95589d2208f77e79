import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import * as Limits from "../../../src/Limits.ts"
import { Reader } from "../../../src/wire/Bytes.ts"
import { FrameReader, FrameWriter, flushed, frame } from "../../../src/wire/Frames.ts"
import { Random } from "../random.ts"

const framed = (body: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(4 + body.byteLength)
  new DataView(bytes.buffer).setUint32(0, body.byteLength)
  bytes.set(body, 4)
  return bytes
}

const header = (length: number): Uint8Array => Uint8Array.of(length >>> 24, length >>> 16, length >>> 8, length)

const bodiesOf = (reader: FrameReader, chunks: Iterable<Uint8Array>): Array<string> => {
  const bodies: Array<string> = []
  for (const chunk of chunks) reader.push(chunk, (body) => bodies.push(Buffer.from(body).toString("hex")))
  return bodies
}

function* split(bytes: Uint8Array, size: () => number): Iterable<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; ) {
    const end = Math.min(bytes.byteLength, at + size())
    yield bytes.slice(at, end)
    at = end
  }
}

describe("the frame reader", () => {
  it("finds the same frames in one chunk, in single bytes and in any split", () => {
    const random = new Random(8)
    for (let seed = 0; seed < 300; seed++) {
      const bodies = Array.from({ length: 1 + random.int(8) }, () =>
        random.bytes(1 + random.int(random.pick([3, 600])))
      )
      const stream = Buffer.concat(bodies.map(framed))
      const expected = bodies.map((body) => Buffer.from(body).toString("hex"))
      for (const size of [() => stream.byteLength, () => 1, () => 1 + random.int(9), () => 1 + random.int(999)]) {
        const reader = new FrameReader(1_000)
        assert.deepStrictEqual(bodiesOf(reader, split(stream, size)), expected)
        assert.deepStrictEqual([reader.fault, reader.partial], [undefined, false])
      }
    }
  })

  it("knows when a frame has begun and is not complete", () => {
    const bytes = framed(Uint8Array.of(1, 2))
    for (let cut = 0; cut <= bytes.byteLength; cut++) {
      const reader = new FrameReader(10)
      bodiesOf(reader, [bytes.subarray(0, cut)])
      assert.strictEqual(reader.partial, cut > 0 && cut < bytes.byteLength, `${cut} bytes`)
    }
  })

  it("takes a body of the limit and refuses one more, before any of it", () => {
    for (const size of [9, 10]) {
      assert.strictEqual(bodiesOf(new FrameReader(10), [framed(new Uint8Array(size))]).length, 1)
    }
    const reader = new FrameReader(10)
    assert.deepStrictEqual(bodiesOf(reader, [header(11)]), [])
    assert.match(reader.fault ?? "", /a frame of 11 bytes, at most 10/)
  })

  it("refuses a frame of no bytes", () => {
    const reader = new FrameReader(10)
    assert.deepStrictEqual(bodiesOf(reader, [framed(Uint8Array.of(7)), header(0)]), ["07"])
    assert.match(reader.fault ?? "", /empty/)
  })

  it("is dead after the first fault, whatever comes", () => {
    const reader = new FrameReader(10)
    const good = framed(Uint8Array.of(7))
    assert.deepStrictEqual(bodiesOf(reader, [Buffer.concat([good, header(999), good, good]), good]), ["07"])
    assert.match(reader.fault ?? "", /999/)
  })

  it("obeys a limit that changes between two frames of one chunk", () => {
    const reader = new FrameReader(1)
    const seen: Array<number> = []
    reader.push(Buffer.concat([1, 50, 51].map((size) => framed(new Uint8Array(size)))), (body) => {
      seen.push(body.byteLength)
      reader.limit = 50
    })
    assert.deepStrictEqual(seen, [1, 50])
    assert.match(reader.fault ?? "", /51/)
  })

  it("an announced length allocates nothing", () => {
    const before = process.memoryUsage().arrayBuffers
    const readers = Array.from({ length: 200 }, () => new FrameReader(Limits.frameBytesMax))
    for (const reader of readers) bodiesOf(reader, [header(Limits.frameBytesMax), Uint8Array.of(1)])
    assert.isTrue(readers.every(({ fault, partial }) => fault === undefined && partial))
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 64 * 1_048_576)
  })

  it("keeps a body that comes in single bytes as cheaply as one that comes whole", () => {
    setFlagsFromString("--expose-gc")
    const collect = runInNewContext("gc") as () => void
    const held = (): number => {
      collect()
      const { arrayBuffers, heapUsed } = process.memoryUsage()
      return arrayBuffers + heapUsed
    }
    const size = 300_000
    const reader = new FrameReader(Limits.frameBytesMax)
    const before = held()
    reader.push(header(size), () => {})
    for (let i = 0; i < size - 1; i++) reader.push(Uint8Array.of(i), () => {})
    assert.isBelow(held() - before, 4 * size)
    let body = new Uint8Array()
    reader.push(Uint8Array.of(size - 1), (whole) => {
      body = whole.slice()
    })
    assert.strictEqual(body.byteLength, size)
    assert.isTrue(body.every((byte, i) => byte === (i & 255)))
  })

  it("puts pieces of every size together in their order", () => {
    const random = new Random(10)
    const body = random.bytes(100_000)
    for (let seed = 0; seed < 100; seed++) {
      const size = () => 1 + random.int(random.pick([3, 900, 4_095, 4_096, 4_097, 30_000]))
      assert.deepStrictEqual(bodiesOf(new FrameReader(body.byteLength), split(framed(body), size)), [
        Buffer.from(body).toString("hex")
      ])
    }
  })

  it("never does anything but read or die, on random bytes", () => {
    const random = new Random(9)
    for (let i = 0; i < 2_000; i++) {
      const reader = new FrameReader(64)
      const bytes = random.bytes(200).map((byte, at) => (at % 4 < 3 && random.chance(80) ? 0 : byte))
      bodiesOf(
        reader,
        split(bytes, () => 1 + random.int(20))
      )
    }
  })
})

describe("the frame writer", () => {
  it("puts many messages into one frame and begins another at the target", () => {
    const writer = new FrameWriter()
    assert.isTrue(writer.empty)
    const message = new Uint8Array(1_000)
    const count = 500
    for (let i = 0; i < count; i++) writer.begin().bin(message)
    assert.isFalse(writer.empty)
    const bytes = flushed(writer)
    assert.isTrue(writer.empty)
    const sizes: Array<number> = []
    new FrameReader(Limits.frameBytesMax).push(bytes, (body) => sizes.push(body.byteLength))
    assert.strictEqual(
      sizes.reduce((a, b) => a + b, 0),
      count * 1_003
    )
    assert.isTrue(sizes.every((size) => size <= Limits.frameBytesTarget + 1_007))
    assert.isAtMost(sizes.length, Math.ceil((count * 1_003) / Limits.frameBytesTarget))
  })

  it("never puts more messages into a frame than a reader takes", () => {
    const writer = new FrameWriter()
    for (let i = 0; i < 2 * Limits.messagesPerFrameMax + 1; i++) writer.begin().nil()
    const sizes: Array<number> = []
    new FrameReader(Limits.frameBytesMax).push(flushed(writer), (body) => sizes.push(body.byteLength))
    assert.deepStrictEqual(sizes, [Limits.messagesPerFrameMax, Limits.messagesPerFrameMax, 1])
  })

  it("hands out bytes that later messages do not change", () => {
    const writer = new FrameWriter()
    const pieces: Array<Uint8Array> = []
    for (let i = 0; i < 50; i++) {
      writer.begin().uint(i)
      pieces.push(flushed(writer))
    }
    for (const [i, bytes] of pieces.entries()) assert.deepStrictEqual([...bytes], [0, 0, 0, 1, i])
    assert.deepStrictEqual([...frame((w) => w.str("a"))], [0, 0, 0, 2, 0xa1, 0x61])
    assert.strictEqual(flushed(writer).byteLength, 0)
  })

  it("keeps apart what several write at a time, whoever is flushed first", () => {
    const random = new Random(11)
    const writers = Array.from({ length: 20 }, () => ({ writer: new FrameWriter(), said: [] as Array<number> }))
    for (let i = 0; i < 5_000; i++) {
      const { said, writer } = random.pick(writers)
      if (random.chance(80)) {
        writer.begin().uint(i % 128)
        said.push(i % 128)
        continue
      }
      assert.strictEqual(writer.empty, said.length === 0)
      const bytes = [...flushed(writer)]
      assert.deepStrictEqual(bytes, said.length === 0 ? [] : [0, 0, 0, said.length, ...said])
      assert.deepStrictEqual([writer.empty, writer.size, writer.frameSize], [true, 0, 0])
      said.length = 0
    }
  })

  it("passes large byte strings on as they are, between what is written, and counts them as its own", () => {
    const random = new Random(12)
    for (let round = 0; round < 200; round++) {
      const writer = new FrameWriter()
      const messages = Array.from({ length: random.int(12) + 1 }, () =>
        Array.from({ length: random.int(4) + 1 }, () =>
          new Uint8Array(random.chance(50) ? random.int(53617) + 16_384 : random.int(301) + 0).fill(round)
        )
      )
      for (const parts of messages) {
        const at = writer.begin()
        for (const part of parts) at.bin(part)
      }
      const size = writer.size
      const written: Array<Uint8Array> = []
      let corked = 0
      const write = (bytes: Uint8Array): void => {
        assert.isAbove(bytes.byteLength, 0, "a runtime may wait for ever for a write of nothing")
        written.push(bytes)
      }
      writer.flush({
        write,
        lend: round % 2 === 0 ? undefined : write,
        cork: () => void corked++,
        uncork: () => void corked--
      })
      const large = messages.flat().filter(({ byteLength }) => byteLength >= 16_384)
      assert.deepStrictEqual(
        written.filter((bytes) => large.some((whole) => whole === bytes)),
        large,
        "each is written itself, in order"
      )
      assert.strictEqual(corked, 0)
      assert.strictEqual(
        written.reduce((sum, { byteLength }) => sum + byteLength, 0),
        size
      )
      const read: Array<Uint8Array> = []
      const reader = new FrameReader(Limits.frameBytesMax)
      for (const bytes of written) {
        reader.push(bytes, (body) => {
          const values = new Reader(body)
          while (!values.done) read.push(values.bin(Limits.frameBytesMax))
        })
      }
      assert.isUndefined(reader.fault)
      assert.isFalse(reader.partial)
      assert.deepStrictEqual(
        read.map(({ byteLength }) => byteLength),
        messages.flat().map(({ byteLength }) => byteLength)
      )
      assert.isTrue(read.every((bytes) => bytes.every((byte) => byte === round)))
      assert.deepStrictEqual([writer.empty, writer.size, writer.frameSize], [true, 0, 0])
    }
  })

  it("writes again to a buffer that it has lent only when the sink is done with it", () => {
    const lent: Array<{ readonly bytes: Uint8Array; readonly said: number; readonly done: () => void }> = []
    let copies = 0
    const sink = {
      write: () => void copies++,
      lend: (bytes: Uint8Array, done: () => void) => void lent.push({ bytes, said: lent.length, done })
    }
    const piece = (said: number) => new Uint8Array(1_000).fill(said % 251)
    const writers = Array.from({ length: 3 }, () => new FrameWriter())
    const random = new Random(13)
    let reused = 0
    const buffers = new Set<ArrayBufferLike>()
    for (let i = 0; i < 300; i++) {
      const writer = random.pick(writers)
      for (let k = 0; k < 10; k++) writer.begin().bin(piece(i))
      writer.flush(sink)
      const { bytes } = lent.at(-1)!
      if (buffers.has(bytes.buffer)) reused++
      buffers.add(bytes.buffer)
      assert.strictEqual(bytes.byteLength, 4 + 10 * 1_003)
      if (i % 5 !== 4) continue
      for (const { bytes, said } of lent.slice(-5)) {
        const body = new Reader(bytes.subarray(4))
        while (!body.done) assert.isTrue(body.bin(1_000).every((byte) => byte === said % 251))
      }
      for (const { done } of lent.slice(-5)) done()
    }
    assert.strictEqual(copies, 0)
    assert.isAbove(reused, 200)
    writers[0]!.begin().bin(piece(1))
    writers[0]!.flush(sink)
    assert.strictEqual(copies, 1, "what is short is copied")
  })

  it("holds no buffer when it has nothing to say, however much it has said before", () => {
    setFlagsFromString("--expose-gc")
    const collect = runInNewContext("gc") as () => void
    const held = (): number => {
      collect()
      collect()
      return process.memoryUsage().arrayBuffers
    }
    const writers = Array.from({ length: 400 }, () => new FrameWriter())
    const piece = new Uint8Array(10_000)
    const before = held()
    for (const writer of writers) for (let i = 0; i < 20; i++) writer.begin().bin(piece)
    assert.isAbove(held() - before, 300 * 20 * piece.byteLength)
    for (const writer of writers) flushed(writer)
    assert.isBelow(held() - before, 20 * 1_048_576)
    assert.isTrue(writers.every(({ empty }) => empty))
  })
})
