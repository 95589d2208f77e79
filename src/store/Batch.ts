/** What a store is given and gives back: rows with numbers, and a batch of them that is written as one. */

import type { Row } from "../model/Journal.ts"

export type { Row } from "../model/Journal.ts"

export interface Batch {
  /** Appended in order; numbers continue the last one's without a gap (the first ever is 1). */
  readonly rows: ReadonlyArray<Row>
  /** Rows below this number are removed in the same transaction. 0: none. */
  readonly dropBefore: number
  /**
   * What the answers of this round need: `fsync` syncs, `buffered` hands over to the operating system. A store that promises
   * `buffered` syncs as well when a round asks for it: a new queue's number must outlast a loss of power.
   */
  readonly durability: "fsync" | "buffered"
}

/** The first fault of a batch for a log that ends with row `last`. */
export const batchFault = (batch: Batch, last: number): string | undefined => {
  let next = last + 1
  for (const { seq } of batch.rows) {
    if (seq !== next) return `row ${seq} does not follow row ${next - 1}`
    next++
  }
  return Number.isSafeInteger(batch.dropBefore) && batch.dropBefore >= 0 && batch.dropBefore <= next
    ? undefined
    : `rows below ${batch.dropBefore} cannot be dropped: the last is ${next - 1}`
}
