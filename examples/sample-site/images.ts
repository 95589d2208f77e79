/**
 * Images made by code: PNG, JPEG, GIF and SVG files that any decoder opens.
 *
 * The sample site serves them, so that a crawl can be shown and tested without a network and without a folder of
 * binary files in the repository. Same index, same image; no two indexes share a picture.
 *
 * Invariant: everything follows from the index; nothing is random, nothing is read from disk.
 */
import * as zlib from "node:zlib"
import { encodeJpeg } from "./jpeg.ts"

export interface Pixels {
  readonly width: number
  readonly height: number
  /** Three bytes a pixel, row by row. */
  readonly rgb: Uint8Array
}

export interface Image {
  readonly extension: "png" | "jpg" | "gif" | "svg"
  readonly contentType: string
  readonly bytes: Uint8Array
}

/** A small deterministic source of numbers in [0, 1) (mulberry32). */
export const makeRandom = (seed: number): (() => number) => {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** A picture: waves of two colours, a disc, and grain that makes files longer. */
const paint = (index: number, width: number, height: number, grain: number): Pixels => {
  const random = makeRandom(index + 1)
  const color = () => [random() * 255, random() * 255, random() * 255] as const
  const [from, to, disc] = [color(), color(), color()]
  const [fx, fy, phase] = [1 + random() * 5, 1 + random() * 5, random() * 6]
  const [cx, cy, radius] = [random(), random(), 0.1 + random() * 0.3]
  const rgb = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [u, v] = [x / width, y / height]
      const wave = (Math.sin(u * fx * 3 + phase) + Math.cos(v * fy * 3)) / 4 + 0.5
      const inside = Math.hypot(u - cx, v - cy) < radius
      const noise = (random() - 0.5) * grain
      for (let c = 0; c < 3; c++) {
        const value = inside ? disc[c]! : from[c]! + (to[c]! - from[c]!) * wave
        rgb[(y * width + x) * 3 + c] = Math.max(0, Math.min(255, Math.round(value + noise)))
      }
    }
  }
  return { width, height, rgb }
}

const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, value)
  return bytes
}

const concat = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

export const encodePng = ({ height, rgb, width }: Pixels): Uint8Array => {
  const chunk = (type: string, data: Uint8Array): Uint8Array => {
    const body = concat([ascii(type), data])
    return concat([u32(data.length), body, u32(zlib.crc32(body))])
  }
  const stride = width * 3
  const raw = new Uint8Array((stride + 1) * height)
  for (let y = 0; y < height; y++) {
    raw[y * (stride + 1)] = 1 // filter "Sub": each byte minus the same one of the pixel before
    for (let i = 0; i < stride; i++) {
      raw[y * (stride + 1) + 1 + i] = rgb[y * stride + i]! - (i < 3 ? 0 : rgb[y * stride + i - 3]!)
    }
  }
  const header = concat([u32(width), u32(height), Uint8Array.of(8, 2, 0, 0, 0)])
  return concat([
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunk("IHDR", header),
    chunk("IDAT", zlib.deflateSync(raw)),
    chunk("IEND", new Uint8Array(0))
  ])
}

/** Variable-width LZW as GIF wants it: least significant bit first, a clear code when the table is full. */
export const lzw = (indexes: Uint8Array, codeBits: number): Uint8Array => {
  const out: Array<number> = []
  const clear = 1 << codeBits
  let buffer = 0
  let filled = 0
  let bits = codeBits + 1
  const put = (code: number): void => {
    buffer |= code << filled
    for (filled += bits; filled >= 8; filled -= 8) {
      out.push(buffer & 0xff)
      buffer >>>= 8
    }
  }
  let table = new Map<number, number>()
  let next = clear + 2
  put(clear)
  let prefix = indexes[0]!
  for (const index of indexes.subarray(1)) {
    const key = (prefix << 8) | index
    const known = table.get(key)
    if (known !== undefined) {
      prefix = known
      continue
    }
    put(prefix)
    if (next < 4_096) {
      table.set(key, next)
      // the decoder is one entry behind, so the width grows when the new code does not fit any more
      if (next === 1 << bits) bits++
      next++
    } else {
      put(clear)
      table = new Map()
      next = clear + 2
      bits = codeBits + 1
    }
    prefix = index
  }
  put(prefix)
  put(clear + 1)
  if (filled > 0) out.push(buffer & 0xff)
  return Uint8Array.from(out)
}

/** A GIF of 64 colours: two bits of each channel. */
export const encodeGif = ({ height, rgb, width }: Pixels): Uint8Array => {
  const palette = new Uint8Array(64 * 3)
  for (let i = 0; i < 64; i++) palette.set([(i >> 4) * 85, ((i >> 2) & 3) * 85, (i & 3) * 85], i * 3)
  const indexes = new Uint8Array(width * height)
  for (let i = 0; i < indexes.length; i++) {
    indexes[i] = ((rgb[i * 3]! >> 6) << 4) | ((rgb[i * 3 + 1]! >> 6) << 2) | (rgb[i * 3 + 2]! >> 6)
  }
  const size = Uint8Array.of(width & 0xff, width >> 8, height & 0xff, height >> 8)
  const data = lzw(indexes, 6)
  const blocks: Array<Uint8Array> = []
  for (let at = 0; at < data.length; at += 255) {
    const block = data.subarray(at, at + 255)
    blocks.push(Uint8Array.of(block.length), block)
  }
  return concat([
    ...[ascii("GIF89a"), size, Uint8Array.of(0xf5, 0, 0), palette],
    ...[Uint8Array.of(0x2c, 0, 0, 0, 0), size, Uint8Array.of(0, 6), ...blocks, Uint8Array.of(0, 0x3b)]
  ])
}

export const encodeSvg = (index: number, shapes: number): Uint8Array => {
  const random = makeRandom(index + 1)
  const number = (max: number) => Math.round(random() * max)
  const color = () => `hsl(${number(360)} ${40 + number(50)}% ${30 + number(40)}%)`
  const body = Array.from({ length: shapes }, (_, i) =>
    i % 2 === 0
      ? `  <circle cx="${number(400)}" cy="${number(300)}" r="${4 + number(60)}" fill="${color()}" opacity="0.8"/>`
      : `  <rect x="${number(400)}" y="${number(300)}" width="${4 + number(90)}" height="${4 + number(90)}" fill="${color()}"/>`
  )
  return ascii(
    `<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 300">\n` +
      `  <title>Picture ${index}</title>\n${body.join("\n")}\n</svg>\n`
  )
}

/** Image number `index`: the kinds take turns, and sizes run from about 200 bytes to about 40 KB. */
export const makeImage = (index: number): Image => {
  // a step through all remainders of 75, so that neighbours differ in size
  const scale = (((Math.floor(index / 4) * 31) % 75) / 74) ** 1.5
  const side = (min: number, max: number) => Math.round(min + (max - min) * scale)
  switch (index % 4) {
    case 0:
      return {
        extension: "png",
        contentType: "image/png",
        bytes: encodePng(paint(index, side(12, 200), side(9, 150), 8))
      }
    case 1:
      return {
        extension: "jpg",
        contentType: "image/jpeg",
        bytes: encodeJpeg(paint(index, side(16, 400), side(13, 300), 60))
      }
    case 2:
      return {
        extension: "gif",
        contentType: "image/gif",
        bytes: encodeGif(paint(index, side(14, 260), side(10, 190), 40))
      }
    default:
      return { extension: "svg", contentType: "image/svg+xml", bytes: encodeSvg(index, side(1, 540)) }
  }
}
