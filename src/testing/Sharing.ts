/**
 * Shared objects in the workload: what every commit of a queue brings about, so that the end of a schedule shows whether
 * it happened once for each task that succeeded, and the reading of all objects in the end.
 *
 * What a task brings about follows from its payload alone, whichever attempt succeeds and whoever commits it; only the
 * results differ, and the children that depend on a key being new.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { make as makeCounter, type SharedCounter } from "../actor/SharedCounter.ts"
import { make as makeDict, type SharedDict } from "../actor/SharedDict.ts"
import { make as makeSet, type SharedSet } from "../actor/SharedSet.ts"
import type { Client } from "../client/Client.ts"
import type { CollectError, Collecting } from "../client/CommitEffects.ts"
import type { ObjectError } from "../client/SharedObject.ts"
import type { ObjectEnd } from "./CheckObjects.ts"
import type { FaultCounts } from "./FaultCounts.ts"
import type { Delivery, History, PutItem, SharedCall } from "./History.ts"
import type { Item, SimQueue } from "./Plan.ts"
import type { SeededRandom } from "./Random.ts"

/** The objects that commits of a queue change. Made once: they hold no state. */
export interface QueueObjects {
  /** Tasks that succeeded. */
  readonly successes: SharedCounter
  /** Their payloads. */
  readonly marked: SharedSet
  /** Payload to result. */
  readonly results: SharedDict<number>
  /** A key is added by whoever finds it new, with a child. */
  readonly links: SharedSet
  /** One entry that every 16th payload counts up, if it has not moved since it was read. */
  readonly chain: SharedDict<number>
}

const made = new Map<string, QueueObjects>()

export const objectsOf = (queue: string): QueueObjects => {
  let objects = made.get(queue)
  if (objects === undefined) {
    objects = {
      successes: makeCounter(`successes.${queue}`),
      marked: makeSet(`marked.${queue}`),
      results: makeDict(`results.${queue}`, { value: Schema.Int }),
      links: makeSet(`links.${queue}`),
      chain: makeDict(`chain.${queue}`, { value: Schema.Int })
    }
    made.set(queue, objects)
  }
  return objects
}

/** Whether a payload counts the chain of its queue up. */
export const inChain = (u: number): boolean => u % 16 === 0

/** What a commit brings about; `child` makes a payload that nobody else has. */
export const collect = (
  { history, kinds }: { readonly history: History; readonly kinds: FaultCounts },
  random: SeededRandom,
  queue: SimQueue,
  u: number,
  run: Pick<Delivery, "at" | "taskId" | "result">,
  commit: Collecting,
  child: () => readonly [queue: SimQueue, value: Item, item: PutItem]
): Effect.Effect<void, CollectError, Client> =>
  Effect.gen(function* () {
    const { chain, links, marked, results, successes } = objectsOf(queue.name)
    if (inChain(u)) {
      const entry = yield* chain.entry("n").pipe(Effect.catchTag("DecodeFailed", (error) => Effect.die(error)))
      kinds.fired("commit with a condition")
      yield* commit.set(chain, "n", (entry?.value ?? 0) + 1, { version: entry?.version ?? 0 })
    }
    kinds.fired("commit with effects")
    yield* commit.increment(successes)
    yield* commit.addToSet(marked, String(u))
    yield* commit.set(results, String(u), run.result!)
    if (!random.chance(0.2)) return
    const key = `link${random.int(30)}`
    const [target, value, item] = child()
    history.children.push({ queue: target.name, item, run, ifNew: { set: links.name, key } })
    kinds.fired("commit with a child if new")
    yield* commit.putIfNew(links, key, target, value)
  })

// ---- by hand

export const words = makeSet("words")
/** Keys of which each has one user. */
export const owned = makeSet("owned")
export const clicks = makeCounter("clicks")
export const onces = makeDict("onces", { value: Schema.Int })
export const notes = makeDict("notes", { value: Schema.Int })

export type Shared = typeof words | typeof clicks | typeof notes

export interface Hand {
  readonly random: SeededRandom
  /** A number that no other write has. */
  readonly fresh: () => number
  /** Runs a request and records it. `onOk` and `onFailure` say what was answered. */
  readonly ask: <A, E>(
    object: Shared,
    call: Pick<SharedCall, "op" | "key"> & Partial<Pick<SharedCall, "value" | "expected">>,
    effect: Effect.Effect<A, E, Client>,
    onOk: (answer: A, call: SharedCall) => void,
    onFailure?: (error: E, call: SharedCall) => void
  ) => Effect.Effect<A | undefined, never, Client>
}

const answers = (answer: boolean | number, call: SharedCall): void => {
  call.answer = answer
}

/** One use of a shared object, or a few by which one user follows a key of its own. */
export const useObject = ({ ask, fresh, random }: Hand): Effect.Effect<unknown, never, Client> => {
  switch (random.pick(["word", "own", "click", "once", "note", "note", "note"] as const)) {
    case "word": {
      const key = `w${random.int(20)}`
      return random.chance(0.5)
        ? ask(words, { op: "add", key }, words.add(key), answers)
        : ask(words, { op: "has", key }, words.has(key), answers)
    }
    case "own": {
      const key = `own${fresh()}`
      const ops = Array.from({ length: random.between(2, 5) }, () => random.pick(["add", "has", "remove"] as const))
      // What ends otherwise than well may be done at any time after: the key is left alone then.
      const steps = (from: number): Effect.Effect<unknown, never, Client> => {
        const op = ops[from]
        if (op === undefined) return Effect.void
        const next = (yes: boolean | undefined) => (yes === undefined ? Effect.void : steps(from + 1))
        return Effect.flatMap(ask(owned, { op, key }, owned[op](key), answers), next)
      }
      return steps(0)
    }
    case "click": {
      const by = random.between(1, 5)
      return ask(clicks, { op: "count", key: "", value: by }, clicks.increment(by), answers)
    }
    case "once": {
      const key = `o${random.int(20)}`
      const value = fresh()
      return ask(onces, { op: "once", key, value }, onces.setIfAbsent(key, value), answers)
    }
    case "note":
      return useNote({ ask, fresh, random }, `n${random.int(3)}`)
  }
}

const useNote = ({ ask, fresh, random }: Hand, key: string): Effect.Effect<unknown, never, Client> => {
  const read = ask(notes, { op: "read", key }, notes.entry(key), (entry, call) => {
    call.answer = entry?.version ?? 0
    call.value = entry?.value
  })
  switch (random.pick(["read", "write", "writeIf", "writeIf", "delete"] as const)) {
    case "read":
      return read
    case "write": {
      const value = fresh()
      return ask(notes, { op: "write", key, value }, notes.set(key, value), answers)
    }
    case "delete":
      return ask(notes, { op: "delete", key }, notes.delete(key), answers)
    case "writeIf":
      return Effect.flatMap(read, (entry) => {
        const value = fresh()
        const expected = entry?.version ?? 0
        const call = { op: "writeIf", key, value, expected } as const
        return ask(notes, call, notes.compareAndSet(key, expected, value), answers, (error, call) => {
          if (error._tag === "Conflict") call.answer = error.current
        })
      })
  }
}

/** Reads everything that there is of these objects. */
export const readAll = (
  objects: Iterable<SharedCounter | SharedSet | SharedDict<number>>,
  into: Map<string, ObjectEnd>
): Effect.Effect<void, ObjectError, Client> =>
  Effect.forEach(
    objects,
    (object): Effect.Effect<unknown, ObjectError, Client> => {
      const { name } = object
      switch (object.kind) {
        case "counter":
          return Effect.map(object.value, (value) => into.set(name, { kind: "counter", value }))
        case "set":
          return Effect.map(Stream.runCollect(object.keys), (keys) => into.set(name, { kind: "set", keys: [...keys] }))
        case "dict":
          return Effect.map(Stream.runCollect(object.entries), (entries) =>
            into.set(name, { kind: "dict", entries: new Map(entries) })
          ).pipe(Effect.catchTag("DecodeFailed", (error) => Effect.die(error)))
      }
    },
    { discard: true, concurrency: 16 }
  )
