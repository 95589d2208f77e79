import * as crypto from "node:crypto"
import * as nodeFs from "node:fs"
import * as zlib from "node:zlib"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import { encodeGif, encodePng, makeImage } from "../../../examples/sample-site/images.ts"
import { encodeJpeg } from "../../../examples/sample-site/jpeg.ts"
import { flakyImage, makePictures } from "../../../examples/sample-site/pages.ts"
import { startSite } from "../../../examples/sample-site/site.ts"
import { type Download, download } from "../../../src/crawl/Download.ts"
import * as Fetch from "../../../src/crawl/Fetch.ts"
import * as HostLimit from "../../../src/crawl/HostLimit.ts"
import { fetchPage } from "../../../src/crawl/Page.ts"
import * as Url from "../../../src/crawl/Url.ts"

const site = Effect.acquireRelease(
  Effect.promise(() => startSite({ port: 0 })),
  (site) => Effect.promise(() => site.close())
)

const Live = Layer.mergeAll(Fetch.layer, NodeServices.layer, HostLimit.layer(8))

/** What a worker and its queue do together: try again while it may help, after the time the server asks for. */
const withRetries = <A, R>(effect: Effect.Effect<A, Fetch.FetchError, R>, attempts: number) => {
  const attempt = (left: number): Effect.Effect<A, Fetch.FetchError, R> =>
    Effect.catch(effect, (error) =>
      left > 1 && Fetch.retryable(error)
        ? Effect.delay(attempt(left - 1), error.retryAfterMs ?? 10)
        : Effect.fail(error)
    )
  return attempt(attempts)
}

describe("the sample site", () => {
  it.live("is crawled to the last picture", () =>
    Effect.gen(function* () {
      const { hits, manifest, url } = yield* site
      const fs = yield* FileSystem.FileSystem
      const directory = yield* fs.makeTempDirectoryScoped()
      const limit = yield* HostLimit.HostLimit
      const start = new URL(url)
      const scope = Url.scopeOf(start)

      const seen = new Map([[Url.key(start), 0]])
      const images = new Map<string, { readonly url: string; readonly referer: string }>()
      const pages: Array<string> = []
      const broken: Array<string> = []
      let wave = [url]
      for (let depth = 1; wave.length > 0; depth++) {
        const results = yield* Effect.forEach(
          wave,
          (url) =>
            fetchPage(url).pipe(
              limit.withPermit(start.host),
              Effect.catch((error) => {
                assert.deepStrictEqual([error.cause, error.status], ["status", 404])
                broken.push(new URL(url).pathname)
                return Effect.succeed(undefined)
              })
            ),
          { concurrency: 16 }
        )
        const next: Array<string> = []
        for (const page of results) {
          if (page === undefined) continue
          pages.push(new URL(page.url).pathname)
          assert.strictEqual(page.dropped, 0)
          for (const image of page.images) images.set(Url.key(new URL(image)), { url: image, referer: page.finalUrl })
          for (const link of page.links) {
            const target = new URL(link)
            if (!Url.inScope(target, scope) || seen.has(Url.key(target))) continue
            seen.set(Url.key(target), depth)
            next.push(link)
          }
        }
        wave = next
      }
      assert.deepStrictEqual(pages.toSorted(), manifest.pages.toSorted())
      assert.strictEqual(pages.length, 40)
      assert.deepStrictEqual(broken, [manifest.broken])
      assert.isAtMost(Math.max(...seen.values()), 6)
      assert.strictEqual(images.size, 301)

      const done: Array<Download> = []
      const dead: Array<string> = []
      yield* Effect.forEach(
        images.values(),
        (image) =>
          withRetries(limit.withPermit(start.host)(download({ ...image, directory })), 4).pipe(
            Effect.map((result) => done.push(result)),
            Effect.catch((error) => {
              assert.deepStrictEqual([error.cause, error.status], ["status", 500])
              return Effect.sync(() => dead.push(new URL(image.url).pathname))
            })
          ),
        { concurrency: 16, discard: true }
      )
      assert.deepStrictEqual(dead, [manifest.failing])
      assert.strictEqual(done.length, 300)
      assert.strictEqual(new Set(done.map(({ sha256 }) => sha256)).size, 300)
      const pathOf = (url: string) => url.slice(start.origin.length)
      const order = <A extends { readonly path: string }>(list: ReadonlyArray<A>) =>
        list.toSorted((a, b) => (a.path < b.path ? -1 : 1))
      assert.deepStrictEqual(
        order(done.map(({ bytes, contentType, sha256, url }) => ({ path: pathOf(url), sha256, bytes, contentType }))),
        order(manifest.images)
      )
      assert.strictEqual(done.filter(({ finalUrl, url }) => finalUrl !== url).length, 12)

      const files = nodeFs.readdirSync(directory, { recursive: true, withFileTypes: true }).filter((e) => e.isFile())
      assert.strictEqual(files.length, 300)
      for (const file of files) {
        const hash = crypto.createHash("sha256").update(nodeFs.readFileSync(`${file.parentPath}/${file.name}`))
        assert.strictEqual(file.name.split(".")[0], hash.digest("hex"))
      }

      const flaky = makePictures()[flakyImage]!
      assert.strictEqual(hits.get(flaky.path), 3)
      assert.strictEqual(hits.get(manifest.failing), 4)
      assert.deepStrictEqual(
        [...hits].filter(([path, count]) => count > 1 && path !== flaky.path && path !== manifest.failing),
        [],
        "everything else was asked for once"
      )
      assert.deepStrictEqual(
        [...hits.keys()].filter((path) => path.startsWith("/never")),
        []
      )
      // 40 pages, the broken link, 300 pictures, 13 redirects, the failing image: and nothing else was asked for
      assert.strictEqual(hits.size, 40 + 1 + 300 + 13 + 1)
    }).pipe(Effect.provide(Live))
  )

  it("is the same at every start", async () => {
    const [a, b] = [await startSite({ port: 0 }), await startSite({ port: 0 })]
    assert.deepStrictEqual(a.manifest, b.manifest)
    assert.notStrictEqual(a.port, b.port)
    await Promise.all([a.close(), b.close()])
  })

  it("has pictures of many sizes, all different", () => {
    const sizes = makePictures().map(({ bytes }) => bytes.length)
    assert.isAtLeast(Math.min(...sizes), 200)
    assert.isAtMost(Math.max(...sizes), 48 * 1_024)
    assert.isAbove(Math.max(...sizes), 20 * 1_024)
    assert.isAbove(new Set(sizes).size, 200)
  })
})

const indexes = Array.from({ length: 300 }, (_, i) => i)
const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** A picture whose every pixel is known. */
const pattern = (width: number, height: number) => {
  const rgb = new Uint8Array(width * height * 3)
  for (let i = 0; i < rgb.length; i++) rgb[i] = (i * 7919 + Math.floor(i / 97) * 31) & 0xff
  return { width, height, rgb }
}

describe("the pictures of the sample site", () => {
  it("PNG: chunks with right checksums, and the pixels come back", () => {
    const decode = (bytes: Uint8Array) => {
      assert.strictEqual(Buffer.from(bytes.subarray(0, 8)).toString("latin1"), "\x89PNG\r\n\x1a\n")
      const data: Array<Uint8Array> = []
      const types: Array<string> = []
      let at = 8
      while (at < bytes.length) {
        const length = view(bytes).getUint32(at)
        const body = bytes.subarray(at + 4, at + 8 + length)
        assert.strictEqual(view(bytes).getUint32(at + 8 + length), zlib.crc32(body))
        types.push(Buffer.from(body.subarray(0, 4)).toString())
        if (types.at(-1) === "IDAT") data.push(body.subarray(4))
        at += 12 + length
      }
      assert.deepStrictEqual([at, types], [bytes.length, ["IHDR", "IDAT", "IEND"]])
      const [width, height] = [view(bytes).getUint32(16), view(bytes).getUint32(20)]
      const raw = zlib.inflateSync(Buffer.concat(data))
      assert.strictEqual(raw.length, (width * 3 + 1) * height)
      const rgb = new Uint8Array(width * height * 3)
      for (let y = 0; y < height; y++) {
        assert.strictEqual(raw[y * (width * 3 + 1)], 1)
        for (let i = 0; i < width * 3; i++) {
          const left = i < 3 ? 0 : rgb[y * width * 3 + i - 3]!
          rgb[y * width * 3 + i] = raw[y * (width * 3 + 1) + 1 + i]! + left
        }
      }
      return { width, height, rgb }
    }
    assert.deepStrictEqual(decode(encodePng(pattern(33, 21))), pattern(33, 21))
    for (const i of indexes.filter((i) => i % 4 === 0)) decode(makeImage(i).bytes)
  })

  it("GIF: blocks in order, and LZW gives one colour a pixel", () => {
    const decode = (bytes: Uint8Array) => {
      assert.strictEqual(Buffer.from(bytes.subarray(0, 6)).toString(), "GIF89a")
      const [width, height] = [view(bytes).getUint16(6, true), view(bytes).getUint16(8, true)]
      assert.strictEqual(bytes[10], 0xf5)
      let at = 13 + 64 * 3
      assert.strictEqual(bytes[at], 0x2c)
      at += 10
      const codeBits = bytes[at++]!
      const parts: Array<Uint8Array> = []
      while (bytes[at] !== 0) {
        parts.push(bytes.subarray(at + 1, at + 1 + bytes[at]!))
        at += 1 + bytes[at]!
      }
      assert.deepStrictEqual([...bytes.subarray(at)], [0, 0x3b])
      const pixels = unlzw(Buffer.concat(parts), codeBits)
      assert.strictEqual(pixels.length, width * height)
      return pixels
    }
    const { height, rgb, width } = pattern(300, 200)
    const expected = Array.from(
      { length: width * height },
      (_, i) => ((rgb[i * 3]! >> 6) << 4) | ((rgb[i * 3 + 1]! >> 6) << 2) | (rgb[i * 3 + 2]! >> 6)
    )
    assert.deepStrictEqual(decode(encodeGif({ width, height, rgb })), expected)
    for (const i of indexes.filter((i) => i % 4 === 2)) decode(makeImage(i).bytes)
  })

  it("JPEG: markers in order, and the Huffman data holds exactly the blocks of the picture", () => {
    for (const i of indexes.filter((i) => i % 4 === 1)) checkJpeg(makeImage(i).bytes)
    const grey = { width: 24, height: 17, rgb: new Uint8Array(24 * 17 * 3).fill(200) }
    // grey 200: luma DC = 8 * (200 - 128) / 16 = 36 in the first block, and no difference after it
    assert.deepStrictEqual(checkJpeg(encodeJpeg(grey)), {
      blocks: 3 * 3 * 3,
      firstDc: 36,
      symbols: [6, ...Array(26).fill(0)]
    })
  })

  it("SVG: one element after the declaration", () => {
    for (const i of indexes.filter((i) => i % 4 === 3)) {
      const text = Buffer.from(makeImage(i).bytes).toString()
      assert.match(
        text,
        /^<\?xml [^>]*\?>\n<svg [^>]*>\n {2}<title>[^<]*<\/title>\n( {2}<(circle|rect)( [a-z]+="[^"<&]*")+\/>\n)+<\/svg>\n$/
      )
    }
  })
})

const unlzw = (data: Uint8Array, codeBits: number): Array<number> => {
  const clear = 1 << codeBits
  const out: Array<number> = []
  let table: Array<Array<number>> = []
  let bits = 0
  let previous: Array<number> | undefined
  let at = 0
  const reset = () => {
    table = Array.from({ length: clear + 2 }, (_, i) => [i])
    bits = codeBits + 1
    previous = undefined
  }
  reset()
  while (true) {
    let code = 0
    for (let i = 0; i < bits; i++, at++) code |= ((data[at >> 3]! >> (at & 7)) & 1) << i
    assert.isAtMost(at, data.length * 8)
    if (code === clear) reset()
    else if (code === clear + 1) break
    else {
      const entry: Array<number> = table[code] ?? [...previous!, previous![0]!]
      assert.isTrue(code < table.length || (code === table.length && previous !== undefined))
      out.push(...entry)
      if (previous !== undefined && table.length < 4_096) table.push([...previous, entry[0]!])
      if (table.length === 1 << bits && bits < 12) bits++
      previous = entry
    }
  }
  assert.isBelow(data.length * 8 - at, 8)
  return out
}

/** Walks the markers and decodes every Huffman symbol of the scan. */
const checkJpeg = (bytes: Uint8Array) => {
  const tables = new Map<number, Map<string, number>>()
  const markers: Array<number> = []
  let [width, height] = [0, 0]
  let at = 2
  assert.deepStrictEqual([bytes[0], bytes[1]], [0xff, 0xd8])
  while (markers.at(-1) !== 0xda) {
    assert.strictEqual(bytes[at], 0xff)
    const marker = bytes[at + 1]!
    const length = view(bytes).getUint16(at + 2)
    const body = bytes.subarray(at + 4, at + 2 + length)
    if (marker === 0xc0) [height, width] = [view(body).getUint16(1), view(body).getUint16(3)]
    if (marker === 0xdb) assert.strictEqual(body.length, 65)
    if (marker === 0xc4) {
      const codes = new Map<string, number>()
      let [code, value] = [0, 17]
      for (let bits = 1; bits <= 16; bits++, code <<= 1) {
        for (let n = 0; n < body[bits]!; n++) codes.set((code++).toString(2).padStart(bits, "0"), body[value++]!)
      }
      assert.strictEqual(value, body.length)
      tables.set(body[0]!, codes)
    }
    markers.push(marker)
    at += 2 + length
  }
  assert.deepStrictEqual(markers, [0xe0, 0xdb, 0xc0, 0xc4, 0xc4, 0xda])
  assert.deepStrictEqual([...bytes.subarray(-2)], [0xff, 0xd9])
  let stream = ""
  for (const end = bytes.length - 2; at < end; at++) {
    stream += bytes[at]!.toString(2).padStart(8, "0")
    if (bytes[at] === 0xff) assert.strictEqual(bytes[++at], 0)
  }
  let position = 0
  const symbol = (table: number): number => {
    for (let length = 1; length <= 16; length++) {
      const value = tables.get(table)!.get(stream.slice(position, position + length))
      if (value === undefined) continue
      position += length
      return value
    }
    throw new Error("no such Huffman code")
  }
  const magnitude = (size: number): number => {
    const text = stream.slice(position, position + size)
    position += size
    if (size === 0) return 0
    return text.startsWith("1") ? Number.parseInt(text, 2) : Number.parseInt(text, 2) - (1 << size) + 1
  }
  const blocks = Math.ceil(width / 8) * Math.ceil(height / 8) * 3
  const symbols: Array<number> = []
  let firstDc = 0
  for (let block = 0; block < blocks; block++) {
    const size = symbol(0x00)
    symbols.push(size)
    const difference = magnitude(size)
    if (block === 0) firstDc = difference
    for (let i = 1; i < 64; ) {
      const pair = symbol(0x10)
      if (pair === 0x00) break
      i += (pair >> 4) + 1
      magnitude(pair & 15)
      assert.isAtMost(i, 64)
    }
  }
  assert.match(stream.slice(position), /^1{0,7}$/)
  return { blocks, firstDc, symbols }
}
