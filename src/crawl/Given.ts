/**
 * The pages that this worker has been given as tasks, so that links to them need not be put again.
 *
 * A site's pages link to the same few pages, and a child whose dedupe id is taken changes nothing; but it is encoded, sent,
 * and looked up. What was leased here is certainly known to the manager, by the id under which it was put, for as long as
 * the crawl's queues remember ids. What was only put here is not: its commit may never be done, or its page be left out.
 *
 * Invariant: a URL is in the set of a crawl and scope only if a task of theirs was for it, leased over the connection that is
 * there now. A manager that was away may be another one, or have lost what it had not synced: `clear` forgets all.
 */
import * as Limits from "../Limits.ts"

export class Given {
  readonly #crawls = new Map<string, Set<string>>()

  /** Of one crawl, by a name for it and its scope. */
  of(crawl: string): Set<string> {
    const known = this.#crawls.get(crawl)
    if (known !== undefined) return known
    const made = new Set<string>()
    this.#crawls.set(crawl, made)
    dropFirst(this.#crawls, Limits.crawlsGivenMax)
    return made
  }

  /** Those who hold a set see it empty. */
  clear(): void {
    for (const given of this.#crawls.values()) given.clear()
    this.#crawls.clear()
  }
}

/** Adds a key and forgets the oldest above the limit. */
export const give = (given: Set<string>, key: string): void => {
  given.add(key)
  dropFirst(given, Limits.crawlGivenMax)
}

const dropFirst = (all: Map<string, unknown> | Set<string>, max: number): void => {
  if (all.size <= max) return
  for (const first of all.keys()) {
    all.delete(first)
    return
  }
}
