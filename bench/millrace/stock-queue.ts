/** The queue of the works on a stock of waiting tasks: payloads of exactly 200 bytes as they are stored. */
import * as Schema from "effect/Schema"
import * as TaskQueue from "../../src/TaskQueue.ts"

export const payloadBytes = 200

const definition = {
  payload: Schema.Struct({ text: Schema.String }),
  policy: { capacity: 100_000_000, outcomesKept: 10_000 }
}

export const Stock = TaskQueue.make("bench.stock", definition)
/** The same with nothing that waits. */
export const Empty = TaskQueue.make("bench.empty", definition)

/** Around the text: a codec byte and the JSON of the structure. */
const around = 1 + '{"text":""}'.length

export const textOf = (index: number): string => String(index).padStart(payloadBytes - around, "x")
export const indexOf = (text: string): number => Number(text.slice(-12).replaceAll("x", ""))
