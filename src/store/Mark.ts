/**
 * The high-water mark: how far a log had come, kept outside the database file.
 *
 * SQLite takes a write-ahead log that is cut, missing or flipped for the end of what was written, and an old copy for the
 * newest: whatever it opens looks sound. The mark is what says otherwise. It is never ahead of what is synced, so a
 * power cut cannot make it lie; one that could not be written stays behind, which only weakens the check. Two slots
 * are written in turn, so a torn write leaves the other.
 */

export interface Mark {
  readonly instance: Uint8Array
  readonly epoch: number
  /** The number below which rows have been dropped. */
  readonly first: number
  /** The last row. 0: none was ever written. */
  readonly last: number
}

export const slotBytes = 512
export const markBytes = 2 * slotBytes
const magic = 0x4d_52_4d_31
const usedBytes = 52

export const encodeSlot = (
  mark: Mark,
  turn: number,
  crc32: (bytes: Uint8Array, seed?: number) => number
): Uint8Array => {
  const slot = new Uint8Array(slotBytes)
  const view = new DataView(slot.buffer)
  view.setUint32(0, magic)
  view.setFloat64(4, turn)
  view.setFloat64(12, mark.epoch)
  view.setFloat64(20, mark.first)
  view.setFloat64(28, mark.last)
  slot.set(mark.instance.subarray(0, 8), 36)
  view.setUint32(usedBytes - 4, crc32(slot.subarray(0, usedBytes - 4)))
  return slot
}

/** The newer of the two slots; undefined when neither is whole. */
export const decodeMark = (
  bytes: Uint8Array,
  crc32: (bytes: Uint8Array, seed?: number) => number
): { readonly mark: Mark; readonly turn: number } | undefined => {
  let newest: { readonly mark: Mark; readonly turn: number } | undefined
  for (const at of [0, slotBytes]) {
    if (bytes.byteLength < at + usedBytes) continue
    const slot = bytes.subarray(at, at + usedBytes)
    const view = new DataView(slot.buffer, slot.byteOffset, usedBytes)
    if (view.getUint32(0) !== magic || view.getUint32(usedBytes - 4) !== crc32(slot.subarray(0, usedBytes - 4)))
      continue
    const turn = view.getFloat64(4)
    if (newest !== undefined && newest.turn >= turn) continue
    newest = {
      turn,
      mark: {
        epoch: view.getFloat64(12),
        first: view.getFloat64(20),
        last: view.getFloat64(28),
        instance: slot.slice(36, 44)
      }
    }
  }
  return newest
}
