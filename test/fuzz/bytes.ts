/** Mutations of bytes, the shrinking of an input that fails, and a walker over MessagePack that knows no message. */
import type { Random } from "../unit/random.ts"

/** An input has at most so many bytes. */
export const inputBytesMax = 64 * 1_024

const scratch = new Uint8Array(inputBytesMax)

/** First bytes of every kind, lengths that lie, ends of ranges. */
const interesting = [
  0x00, 0x01, 0x0f, 0x20, 0x7f, 0x80, 0x90, 0x91, 0x9f, 0xa0, 0xa1, 0xbf, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6,
  0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xe0, 0xfe, 0xff
]
const words = [
  0, 1, 0x7f, 0x80, 0xff, 0x100, 0x3ff, 0x400, 0x401, 0xffff, 0x1_0000, 0x20_0000, 0x7fff_ffff, 0xffff_ffff
]

/** One in so many edits repeats a byte or a piece until the input is long: what is quadratic shows itself. */
const longEvery = 100

/**
 * One to a few edits of `from`, or a splice with `other`. The answer lives until the next call: it is not copied, for that
 * would be half of the time. `tokens` are pieces of the grammar.
 */
export const mutated = (
  random: Random,
  from: Uint8Array,
  other: Uint8Array,
  tokens: ReadonlyArray<Uint8Array>
): Uint8Array => {
  scratch.set(from)
  let size = from.byteLength
  do size = edited(random, size, other, tokens)
  while (random.int(3) === 0)
  return scratch.subarray(0, size)
}

/** Makes room for `added` bytes at `at` in place of `removed`. */
const move = (size: number, at: number, removed: number, added: number): number => {
  scratch.copyWithin(at + added, at + removed, size)
  return size - removed + added
}

const edited = (random: Random, size: number, other: Uint8Array, tokens: ReadonlyArray<Uint8Array>): number => {
  const at = random.int(size + 1)
  const kind = random.int(11)
  if (size === 0 && kind < 6) return size
  switch (kind) {
    case 0:
      scratch[at % size]! ^= 1 << random.int(8)
      return size
    case 1:
      scratch[at % size] = random.pick(interesting)
      return size
    case 2:
      scratch[at % size]! += random.int(2) * 2 - 1
      return size
    case 3: {
      const removed = Math.min(size - at, 1 + random.int(random.pick([2, 8, 64])))
      return move(size, at, removed, 0)
    }
    case 4:
      return at
    case 5: {
      const word = random.pick(words)
      for (let i = 0; i < 4 && at + i < size; i++) scratch[at + i] = word >>> (24 - 8 * i)
      return size
    }
    case 6: {
      const piece = tokens.length === 0 ? other : random.pick(tokens)
      if (size + piece.byteLength > inputBytesMax) return size
      const removed = random.int(2) === 0 ? 0 : Math.min(piece.byteLength, size - at)
      const grown = move(size, at, removed, piece.byteLength)
      scratch.set(piece, at)
      return grown
    }
    case 7: {
      const added = 1 + random.int(8)
      if (size + added > inputBytesMax) return size
      const grown = move(size, at, 0, added)
      for (let i = 0; i < added; i++) scratch[at + i] = random.int(256)
      return grown
    }
    case 8: {
      const start = random.int(other.byteLength + 1)
      const tail = other.subarray(start)
      if (at + tail.byteLength > inputBytesMax) return size
      scratch.set(tail, at)
      return at + tail.byteLength
    }
    case 9:
      // What a newer peer adds: the head of a short array grows, values follow at the end.
      if (size > 0 && size + 8 <= inputBytesMax && scratch[0]! >= 0x90 && scratch[0]! < 0x9e) {
        const added = 1 + random.int(2)
        scratch[0]! += added
        for (let i = 0; i < added; i++) scratch[size++] = random.pick([0x01, 0xc0, 0xc3, 0x90, 0xa0])
      }
      return size
    default: {
      const long = random.int(longEvery) === 0
      const piece = Math.min(size - at, 1 + random.int(random.pick([1, 4, 16])))
      if (piece === 0) return size
      const room = Math.floor((inputBytesMax - size) / piece)
      const times = Math.min(room, 1 + random.int(long ? 50_000 : random.pick([2, 40])))
      const grown = move(size, at, 0, piece * times)
      // What is to be repeated has moved behind the room made for it; each copy doubles what there is.
      scratch.copyWithin(at, at + piece * times, at + piece * times + piece)
      for (let done = piece; done < piece * times; done *= 2) {
        scratch.copyWithin(at + done, at, at + Math.min(done, piece * times - done))
      }
      return grown
    }
  }
}

const shrinkTriesMax = 4_000
const shrinkMs = 5_000

/** The smallest input found that still fails: pieces are cut out, from halves to single bytes, then bytes become 0. */
export const shrunk = (input: Uint8Array, fails: (input: Uint8Array) => boolean): Uint8Array => {
  const until = performance.now() + shrinkMs
  let tries = 0
  let best: Uint8Array = input.slice()
  const over = (): boolean => tries > shrinkTriesMax || performance.now() > until
  const goes = (candidate: Uint8Array): boolean => {
    tries++
    if (!fails(candidate)) return false
    best = candidate
    return true
  }
  for (let again = true; again; ) {
    again = false
    for (let piece = Math.ceil(best.byteLength / 2); piece >= 1; piece = piece === 1 ? 0 : Math.ceil(piece / 2)) {
      for (let at = 0; at + piece <= best.byteLength && !over(); ) {
        const candidate = new Uint8Array(best.byteLength - piece)
        candidate.set(best.subarray(0, at))
        candidate.set(best.subarray(at + piece), at)
        if (goes(candidate)) again = true
        else at += piece
      }
    }
  }
  for (let at = 0; at < best.byteLength && !over(); at++) {
    if (best[at] === 0) continue
    const candidate = best.slice()
    candidate[at] = 0
    goes(candidate)
  }
  return best
}

/**
 * Where the one value ends that begins at `from`, by the MessagePack specification and the subset of the protocol alone;
 * -1: there is none. It knows no message, so a decoder that reads past the end of an array disagrees with it.
 */
export const valueEnd = (bytes: Uint8Array, from: number): number => {
  let at = from
  for (let left = 1; left > 0; left--) {
    if (at >= bytes.byteLength) return -1
    const byte = bytes[at++]!
    if (byte < 0x80 || byte === 0xc0 || byte === 0xc2 || byte === 0xc3) continue
    if (byte >= 0x90 && byte <= 0x9f) left += byte & 0x0f
    else if (byte >= 0xa0 && byte <= 0xbf) at += byte & 0x1f
    else if (byte >= 0xcc && byte <= 0xcf) at += 1 << (byte - 0xcc)
    else {
      const array = byte === 0xdc || byte === 0xdd
      const width = array
        ? byte === 0xdc
          ? 2
          : 4
        : byte >= 0xc4 && byte <= 0xc6
          ? 1 << (byte - 0xc4)
          : byte >= 0xd9 && byte <= 0xdb
            ? 1 << (byte - 0xd9)
            : 0
      if (width === 0 || at + width > bytes.byteLength) return -1
      let size = 0
      for (let i = 0; i < width; i++) size = size * 256 + bytes[at++]!
      if (array) left += size
      else at += size
    }
    if (at > bytes.byteLength) return -1
  }
  return at
}

/** Whether `a`, from `from` on, has the bytes of `b` and ends at `to`. */
export const sameBytes = (a: Uint8Array, from: number, to: number, b: Uint8Array, size: number): boolean => {
  if (to - from !== size) return false
  for (let i = 0; i < size; i++) if (a[from + i] !== b[i]) return false
  return true
}
