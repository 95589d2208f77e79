/**
 * What is fuzzed, and how: batches of inputs from a seed, each input looked at by the target's `check`.
 *
 * A batch is a function of target, seed and its number, so that any of them is run again alone. In each a pool of valid
 * inputs is built from the grammar; most inputs are mutations of the pool, some the pool itself, some plain noise. An
 * input that is slow is run three more times and counts with its fastest, so that a busy machine is no failure. In one
 * batch of `auditEvery` every byte array made is counted: what an input makes the code allocate must follow its size.
 */
import { toHex } from "../../src/wire/Bytes.ts"
import { Random } from "../unit/random.ts"
import { mutated, shrunk } from "./bytes.ts"

export interface Target {
  readonly name: string
  /** Inputs in `npm test`: about two seconds. */
  readonly smoke: number
  /** A valid input. */
  readonly make: (random: Random) => Uint8Array
  /** Pieces of the grammar, to be inserted. */
  readonly tokens: ReadonlyArray<Uint8Array>
  /** Throws what is wrong with the code. Returns the frames in the input (1 where it has none). */
  readonly check: (input: Uint8Array) => number
  /** Whether a valid input is taken. Default: nobody asks. */
  readonly takes?: (input: Uint8Array) => boolean
}

export const inputMsMax = 100
/** What takes longer is run again, so that the longest time reported is that of an input. */
const suspectMs = 5
export const batchInputs = 1_000
const hexPartsMax = 4_096
const poolSize = 48
const noiseBytesMax = 64
const auditEvery = 16
/** Bytes that an input may make its code allocate: so many, and so many for each of its own. */
const allocatedBase = 256 * 1_024
const allocatedFactor = 64

export interface Failure {
  readonly target: string
  readonly seed: number
  readonly batch: number
  /** What was wrong. */
  readonly why: string
  /** As small as it was made. */
  readonly input: string
}

export interface Result {
  inputs: number
  frames: number
  slowestMs: number
  failure: Failure | undefined
}

/** Puts a failing input of one target down; how `check` fails. */
const whyOf = (target: Target, input: Uint8Array): string | undefined => {
  try {
    target.check(input)
    return undefined
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  }
}

/** Of this thread, in milliseconds: a busy machine does not count. */
export const threadMs = (): number => {
  const { system, user } = process.threadCpuUsage()
  return (system + user) / 1_000
}

/** The fastest of up to three more runs, in time of the thread: a pause of the machine, or of the collector, is not in it. */
const fastestOf = (target: Target, input: Uint8Array): number => {
  let best = Number.POSITIVE_INFINITY
  for (let i = 0; i < 3 && best > suspectMs; i++) {
    const from = threadMs()
    whyOf(target, input)
    best = Math.min(best, threadMs() - from)
  }
  return best
}

/** Why an input fails, by what it does or by its time; undefined: it does not. */
export const wrongWith = (target: Target, input: Uint8Array): string | undefined => {
  const from = performance.now()
  const why = whyOf(target, input)
  if (why !== undefined || performance.now() - from <= inputMsMax) return why
  const ms = fastestOf(target, input)
  return ms > inputMsMax ? `it takes ${Math.round(ms)} ms, at most ${inputMsMax} are allowed` : undefined
}

/** Runs of a byte as `61{1000}`; what is still long is cut, and found again by its seed. */
const hexOf = (input: Uint8Array): string => {
  const parts: Array<string> = []
  for (let at = 0; at < input.byteLength && parts.length < hexPartsMax; ) {
    let end = at + 1
    while (input[end] === input[at]) end++
    const byte = toHex(input.subarray(at, at + 1))
    parts.push(end - at > 4 ? `${byte}{${end - at}}` : byte.repeat(end - at))
    at = end
    if (parts.length === hexPartsMax && at < input.byteLength) parts.push(`... ${input.byteLength} bytes`)
  }
  return parts.join("")
}

const failureOf = (target: Target, seed: number, batch: number, input: Uint8Array, why: string): Failure => {
  const small = shrunk(input, (candidate) => wrongWith(target, candidate) !== undefined)
  return { target: target.name, seed, batch, why: wrongWith(target, small) ?? why, input: hexOf(small) }
}

/** Inputs of one batch, in order. The bytes of an input live until the next is drawn. */
function* inputsOf(target: Target, random: Random): Generator<readonly [input: Uint8Array, valid: boolean]> {
  const pool = Array.from({ length: poolSize }, () => target.make(random))
  for (const input of pool) yield [input, true]
  for (let i = poolSize; i < batchInputs; i++) {
    if (random.int(20) === 0) yield [random.bytes(random.int(noiseBytesMax)), false]
    else yield [mutated(random, random.pick(pool), random.pick(pool), target.tokens), false]
  }
}

const randomOf = ({ name }: Target, seed: number, batch: number): Random => {
  let hash = Math.imul(seed, 0x9e37_79b1) ^ Math.imul(batch + 1, 0x85eb_ca6b)
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x0100_0193)
  return new Random(hash)
}

/** Runs one batch and adds to `result`; ends at the first failure. */
export const runBatch = (target: Target, seed: number, batch: number, result: Result): void => {
  const audit = batch % auditEvery === 0 ? new Audit() : undefined
  const builtins = Object.getOwnPropertyNames(Object.prototype).length
  let from = performance.now()
  const fail = (input: Uint8Array, why: string): void => {
    audit?.end()
    result.failure = failureOf(target, seed, batch, input, why)
  }
  try {
    for (const [input, valid] of inputsOf(target, randomOf(target, seed, batch))) {
      result.inputs++
      audit?.begin(input)
      try {
        result.frames += target.check(input)
      } catch (error) {
        return fail(input, String(error))
      }
      const over = audit?.over()
      if (over !== undefined) {
        fail(input, over)
        // The shrinker looks at what `check` does and at time, not at what is allocated.
        result.failure = { ...result.failure!, why: over, input: hexOf(input) }
        return
      }
      if (valid && target.takes?.(input) === false) return fail(input, "a valid input was refused")
      const now = performance.now()
      let ms = now - from
      if (ms > suspectMs && audit === undefined) {
        ms = fastestOf(target, input)
        if (ms > inputMsMax) return fail(input, `it takes ${Math.round(ms)} ms`)
      }
      if (audit === undefined) result.slowestMs = Math.max(result.slowestMs, ms)
      from = now - from > suspectMs ? performance.now() : now
    }
    if (Object.getOwnPropertyNames(Object.prototype).length !== builtins) {
      result.failure = { target: target.name, seed, batch, why: "Object.prototype has grown", input: "" }
    }
  } finally {
    audit?.end()
  }
}

export const newResult = (): Result => ({ inputs: 0, frames: 0, slowestMs: 0, failure: undefined })

/** `inputs` of them, in whole batches, from batch `first` on in steps of `step`; ends early when `stop` says so. */
export const runTarget = (
  target: Target,
  seed: number,
  inputs: number,
  options: { readonly first?: number; readonly step?: number; readonly stop?: () => boolean } = {}
): Result => {
  const result = newResult()
  const { first = 0, step = 1, stop } = options
  for (let batch = first; result.inputs < inputs && stop?.() !== true; batch += step) {
    runBatch(target, seed, batch, result)
    if (result.failure !== undefined) break
  }
  return result
}

/** Inputs that once failed: all of them must pass. */
export const replayKept = (
  target: Target,
  kept: ReadonlyArray<{ readonly why: string; readonly input: Uint8Array }>
) => {
  for (const { input, why } of kept) {
    const wrong = wrongWith(target, input)
    if (wrong !== undefined) return `${wrong} (kept because: ${why})`
  }
  return undefined
}

/** Counts the bytes of every `new Uint8Array(size)` while one input is looked at. */
class Audit {
  readonly #real = globalThis.Uint8Array
  #allocated = 0
  #allowed = 0

  constructor() {
    const isBytes = (value: unknown): boolean => value instanceof this.#real
    const count = (size: number): void => {
      this.#allocated += size
    }
    globalThis.Uint8Array = class extends (this.#real as new (...args: ReadonlyArray<unknown>) => object) {
      constructor(...args: ReadonlyArray<unknown>) {
        if (typeof args[0] === "number") count(args[0])
        super(...args)
      }
      static override [Symbol.hasInstance](value: unknown): boolean {
        return isBytes(value)
      }
    } as unknown as typeof Uint8Array
  }

  begin(input: Uint8Array): void {
    this.#allocated = 0
    this.#allowed = allocatedBase + allocatedFactor * input.byteLength
  }

  over(): string | undefined {
    if (this.#allocated <= this.#allowed) return undefined
    return `it allocates ${this.#allocated} bytes, at most ${this.#allowed} are allowed`
  }

  end(): void {
    globalThis.Uint8Array = this.#real
  }
}
