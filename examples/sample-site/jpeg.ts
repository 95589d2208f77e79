/**
 * A small baseline JPEG encoder: 8 bits, three components without subsampling, the standard Huffman tables.
 *
 * Part of the sample site, which needs real images without a dependency. It is written to be read, not to be fast, and
 * knows no progressive mode, no restart markers and no metadata.
 *
 * Invariant: the output is what any decoder accepts: SOI, JFIF, DQT, SOF0, DHT, SOS, entropy-coded data, EOI.
 */
import type { Pixels } from "./images.ts"

// biome-ignore format: tables read best as squares
const zigzag = [
  0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63
]
// biome-ignore format: tables read best as squares
const quantization = [
  16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
  18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99
]

interface Table {
  /** How many codes there are of each length 1..16. */
  readonly counts: ReadonlyArray<number>
  readonly values: ReadonlyArray<number>
}

const hex = (text: string): Array<number> =>
  Array.from({ length: text.length / 2 }, (_, i) => Number.parseInt(text.slice(i * 2, i * 2 + 2), 16))

/** The tables K.3 and K.5 of the JPEG standard; one pair serves all components here. */
const dc: Table = { counts: hex("00010501010101010100000000000000"), values: hex("000102030405060708090a0b") }
const ac: Table = {
  counts: hex("0002010303020403050504040000017d"),
  values: hex(
    "01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a" +
      "434445464748494a535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aa" +
      "b2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
  )
}

type Codes = ReadonlyMap<number, { readonly code: number; readonly length: number }>

const codesOf = (table: Table): Codes => {
  const codes = new Map<number, { code: number; length: number }>()
  let code = 0
  let at = 0
  table.counts.forEach((count, i) => {
    for (let n = 0; n < count; n++) codes.set(table.values[at++]!, { code: code++, length: i + 1 })
    code <<= 1
  })
  return codes
}

const dcCodes = codesOf(dc)
const acCodes = codesOf(ac)

const cosines = Array.from({ length: 64 }, (_, i) => {
  const [u, x] = [i >> 3, i & 7]
  return (u === 0 ? Math.SQRT1_2 : 1) * 0.5 * Math.cos(((2 * x + 1) * u * Math.PI) / 16)
})

/** Two-dimensional DCT of an 8 x 8 block, as two passes over rows. */
const transform = (block: ReadonlyArray<number>): Array<number> => {
  const pass = (input: ReadonlyArray<number>): Array<number> => {
    const output: Array<number> = new Array(64).fill(0)
    for (let row = 0; row < 8; row++) {
      for (let u = 0; u < 8; u++) {
        let sum = 0
        for (let x = 0; x < 8; x++) sum += input[row * 8 + x]! * cosines[u * 8 + x]!
        output[u * 8 + row] = sum
      }
    }
    return output
  }
  return pass(pass(block))
}

const makeWriter = () => {
  const out: Array<number> = []
  let buffer = 0
  let filled = 0
  const bits = (value: number, length: number): void => {
    for (let i = length - 1; i >= 0; i--) {
      buffer = (buffer << 1) | ((value >> i) & 1)
      if (++filled < 8) continue
      out.push(buffer)
      if (buffer === 0xff) out.push(0) // a 0xff in the data is stuffed
      buffer = 0
      filled = 0
    }
  }
  const marker = (code: number, body: ReadonlyArray<number>): void => {
    out.push(0xff, code, (body.length + 2) >> 8, (body.length + 2) & 0xff)
    for (const byte of body) out.push(byte)
  }
  const flush = (): void => {
    if (filled > 0) bits((1 << (8 - filled)) - 1, 8 - filled)
  }
  return { out, bits, marker, flush }
}

export const encodeJpeg = ({ height, rgb, width }: Pixels): Uint8Array => {
  const writer = makeWriter()
  const { bits, marker, out } = writer
  out.push(0xff, 0xd8)
  marker(0xe0, [0x4a, 0x46, 0x49, 0x46, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0])
  marker(0xdb, [0, ...zigzag.map((i) => quantization[i]!)])
  const component = (id: number): Array<number> => [id, 0x11, 0]
  const size = [height >> 8, height & 0xff, width >> 8, width & 0xff]
  marker(0xc0, [8, ...size, 3, ...component(1), ...component(2), ...component(3)])
  marker(0xc4, [0x00, ...dc.counts, ...dc.values])
  marker(0xc4, [0x10, ...ac.counts, ...ac.values])
  marker(0xda, [3, 1, 0, 2, 0, 3, 0, 0, 63, 0])

  const put = (codes: Codes, symbol: number): void => {
    const { code, length } = codes.get(symbol)!
    bits(code, length)
  }
  /** A value as its size and the bits of its magnitude; negative numbers in one's complement. */
  const magnitude = (value: number): { size: number; code: number } => {
    const size = 32 - Math.clz32(Math.abs(value))
    return { size, code: value < 0 ? value + (1 << size) - 1 : value }
  }
  const previous = [0, 0, 0]
  const block = (samples: ReadonlyArray<number>, index: number): void => {
    const frequencies = transform(samples)
    const values = zigzag.map((i) => Math.round(frequencies[i]! / quantization[i]!))
    const first = magnitude(values[0]! - previous[index]!)
    previous[index] = values[0]!
    put(dcCodes, first.size)
    bits(first.code, first.size)
    let zeros = 0
    for (let i = 1; i < 64; i++) {
      if (values[i] === 0) {
        zeros++
        continue
      }
      for (; zeros > 15; zeros -= 16) put(acCodes, 0xf0)
      const { code, size } = magnitude(values[i]!)
      put(acCodes, (zeros << 4) | size)
      bits(code, size)
      zeros = 0
    }
    if (zeros > 0) put(acCodes, 0x00)
  }

  for (let top = 0; top < height; top += 8) {
    for (let left = 0; left < width; left += 8) {
      const components: [Array<number>, Array<number>, Array<number>] = [[], [], []]
      for (let i = 0; i < 64; i++) {
        const x = Math.min(left + (i & 7), width - 1)
        const y = Math.min(top + (i >> 3), height - 1)
        const at = (y * width + x) * 3
        const [r, g, b] = [rgb[at]!, rgb[at + 1]!, rgb[at + 2]!]
        components[0].push(0.299 * r + 0.587 * g + 0.114 * b - 128)
        components[1].push(-0.168736 * r - 0.331264 * g + 0.5 * b)
        components[2].push(0.5 * r - 0.418688 * g - 0.081312 * b)
      }
      components.forEach(block)
    }
  }
  writer.flush()
  out.push(0xff, 0xd9)
  return Uint8Array.from(out)
}
