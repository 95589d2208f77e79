/** What the messages of both directions are made of. */
import type { Reader, Writer } from "./Bytes.ts"

/** Names of queues, shared objects and namespaces. */
export const isName = /^[A-Za-z0-9._:-]{1,200}$/

/** The beginning of a message: how many elements follow, the type first. */
export const head = (w: Writer, length: number, type: number): void => {
  w.array(length)
  w.uint(type)
}

export const uints = (w: Writer, values: ReadonlyArray<number>): void => {
  w.array(values.length)
  for (let i = 0; i < values.length; i++) w.uint(values[i]!)
}

export const list = <A>(r: Reader, max: number, item: () => A): ReadonlyArray<A> => {
  const length = r.array(max)
  const items: Array<A> = []
  for (let i = 0; i < length; i++) items.push(item())
  return items
}

export const uintList = (r: Reader, max: number): ReadonlyArray<number> => list(r, max, () => r.uint())
