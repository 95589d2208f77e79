/**
 * SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012), keyed.
 *
 * Whoever does not know the key can neither aim at a collision nor at a place in a table. Written with 32-bit integers:
 * a 64-bit word is a low and a high half, and the carry of an addition comes from the top bits of its operands. Pure: the
 * key is an argument, and `node:crypto` is not needed.
 */

/** A secret key, and the last fingerprint made with it. One object per table, so that nothing is allocated per key. */
export class SipHash {
  /** The 128 bits of the last `of`, as little-endian words in the order of the published output. */
  readonly words = new Uint32Array(4)
  readonly #k0l: number
  readonly #k0h: number
  readonly #k1l: number
  readonly #k1h: number

  /** Assumes: 16 bytes. */
  constructor(key: Uint8Array) {
    this.#k0l = wordAt(key, 0)
    this.#k0h = wordAt(key, 4)
    this.#k1l = wordAt(key, 8)
    this.#k1h = wordAt(key, 12)
  }

  /** Fills `words` with the fingerprint of `bytes`. */
  of(bytes: Uint8Array): void {
    const k0l = this.#k0l
    const k0h = this.#k0h
    const k1l = this.#k1l
    const k1h = this.#k1h
    let v0l = k0l ^ 0x70736575
    let v0h = k0h ^ 0x736f6d65
    let v1l = k1l ^ 0x6e646f6d ^ 0xee
    let v1h = k1h ^ 0x646f7261
    let v2l = k0l ^ 0x6e657261
    let v2h = k0h ^ 0x6c796765
    let v3l = k1l ^ 0x79746573
    let v3h = k1h ^ 0x74656462
    const size = bytes.length
    const tail = size & ~7
    // One loop for all steps: the blocks, the last one with the length, and the two finalizations.
    let state = 0
    for (let at = 0; ; at += 8) {
      let rounds = 2
      let ml = 0
      let mh = 0
      if (at < tail) {
        ml = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
        mh = bytes[at + 4]! | (bytes[at + 5]! << 8) | (bytes[at + 6]! << 16) | (bytes[at + 7]! << 24)
      } else if (at === tail) {
        const left = size - tail
        for (let i = Math.min(left, 4) - 1; i >= 0; i--) ml = (ml << 8) | bytes[tail + i]!
        for (let i = left - 1; i >= 4; i--) mh = (mh << 8) | bytes[tail + i]!
        mh |= size << 24
      } else {
        rounds = 4
        if (state === 0) v2l ^= 0xee
        else v1l ^= 0xdd
        state++
      }
      v3l ^= ml
      v3h ^= mh
      for (; rounds > 0; rounds--) {
        // v0 += v1; v1 = rotl(v1, 13) ^ v0; v0 = rotl(v0, 32)
        let l = (v0l + v1l) | 0
        let h = (v0h + v1h + (((v0l & v1l) | ((v0l | v1l) & ~l)) >>> 31)) | 0
        let t = (v1l << 13) | (v1h >>> 19)
        v1h = ((v1h << 13) | (v1l >>> 19)) ^ h
        v1l = t ^ l
        v0l = h
        v0h = l
        // v2 += v3; v3 = rotl(v3, 16) ^ v2
        l = (v2l + v3l) | 0
        h = (v2h + v3h + (((v2l & v3l) | ((v2l | v3l) & ~l)) >>> 31)) | 0
        t = (v3l << 16) | (v3h >>> 16)
        v3h = ((v3h << 16) | (v3l >>> 16)) ^ h
        v3l = t ^ l
        v2l = l
        v2h = h
        // v0 += v3; v3 = rotl(v3, 21) ^ v0
        l = (v0l + v3l) | 0
        h = (v0h + v3h + (((v0l & v3l) | ((v0l | v3l) & ~l)) >>> 31)) | 0
        t = (v3l << 21) | (v3h >>> 11)
        v3h = ((v3h << 21) | (v3l >>> 11)) ^ h
        v3l = t ^ l
        v0l = l
        v0h = h
        // v2 += v1; v1 = rotl(v1, 17) ^ v2; v2 = rotl(v2, 32)
        l = (v2l + v1l) | 0
        h = (v2h + v1h + (((v2l & v1l) | ((v2l | v1l) & ~l)) >>> 31)) | 0
        t = (v1l << 17) | (v1h >>> 15)
        v1h = ((v1h << 17) | (v1l >>> 15)) ^ h
        v1l = t ^ l
        v2l = h
        v2h = l
      }
      v0l ^= ml
      v0h ^= mh
      if (state === 1) {
        this.words[0] = v0l ^ v1l ^ v2l ^ v3l
        this.words[1] = v0h ^ v1h ^ v2h ^ v3h
      } else if (state === 2) {
        this.words[2] = v0l ^ v1l ^ v2l ^ v3l
        this.words[3] = v0h ^ v1h ^ v2h ^ v3h
        return
      }
    }
  }
}

const wordAt = (bytes: Uint8Array, at: number): number =>
  bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
