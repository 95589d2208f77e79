/**
 * A whole number at the manager, shared by all its clients; from -(2^53-1) to 2^53-1, beginning at 0.
 *
 * What a handler adds through `task.increment` joins its commit; what it adds here happens at once.
 */
import * as Effect from "effect/Effect"
import { Client } from "../client/Client.ts"
import { askObject, counterFault, type ObjectError } from "../client/SharedObject.ts"
import { Conflict, type CounterOverflow } from "../Errors.ts"
import { ClientType as C, ManagerType as M } from "../wire/Vocabulary.ts"
import { checkName } from "./name.ts"

export class SharedCounter {
  readonly kind = "counter"
  readonly name: string

  constructor(name: string) {
    this.name = checkName(name)
  }

  get value(): Effect.Effect<number, ObjectError, Client> {
    return this.increment(0).pipe(Effect.catchTag("CounterOverflow", (error) => Effect.die(error)))
  }

  /** Adds `by` (default 1, may be negative) and returns the sum. `CounterOverflow` and unchanged if that is no safe integer. */
  increment(by = 1): Effect.Effect<number, ObjectError | CounterOverflow, Client> {
    return Effect.flatMap(Client, (client) => {
      const fault = counterFault(by)
      if (fault !== undefined) return Effect.fail(fault)
      return askObject(
        client,
        this,
        (request, object) => ({ type: C.count, request, object, by }),
        M.counter,
        ({ value }) => value
      ).pipe(Effect.catchTag(neverOfCounters, (error) => Effect.die(error)))
    })
  }

  set(value: number): Effect.Effect<void, ObjectError, Client> {
    return Effect.asVoid(this.#set(undefined, value))
  }

  /** Sets the counter if it is `expected`; otherwise `Conflict` with its current value, and unchanged. */
  compareAndSet(expected: number, value: number): Effect.Effect<void, ObjectError | Conflict, Client> {
    return Effect.flatMap(this.#set(expected, value), ({ done, value: current }) =>
      done ? Effect.void : Effect.fail(new Conflict({ object: this.name, key: "", current }))
    )
  }

  #set(
    expected: number | undefined,
    value: number
  ): Effect.Effect<{ readonly done: boolean; readonly value: number }, ObjectError, Client> {
    return Effect.flatMap(Client, (client) => {
      const fault = counterFault(value) ?? counterFault(expected ?? 0)
      if (fault !== undefined) return Effect.fail(fault)
      return askObject(
        client,
        this,
        (request, object) => ({ type: C.countSet, request, object, expected, value }),
        M.counter,
        (answer) => answer
      ).pipe(Effect.catchTag([...neverOfCounters, "CounterOverflow"] as const, (error) => Effect.die(error)))
    })
  }
}

/** A counter says no to a compare-and-set in its answer, and has no commit of its own. */
const neverOfCounters = ["Conflict", "DurabilityMixed"] as const

/** A counter by its name: 1 to 200 characters of A-Z a-z 0-9 . _ : - (throws `DefinitionInvalid` for another). */
export const make = (name: string): SharedCounter => new SharedCounter(name)
