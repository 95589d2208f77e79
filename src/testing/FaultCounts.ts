/** How often each kind of fault, or of operation, has really happened: one that never does tests nothing. */
export class FaultCounts {
  readonly counts = new Map<string, number>()

  fired(kind: string, times = 1): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + times)
  }

  add(other: FaultCounts): void {
    for (const [kind, times] of other.counts) this.fired(kind, times)
  }

  /** Kinds of `wanted` that never happened. */
  missing(wanted: ReadonlyArray<string>): ReadonlyArray<string> {
    return wanted.filter((kind) => !this.counts.has(kind))
  }

  toJSON(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.counts].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}
