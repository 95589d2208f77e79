/**
 * An independent account of the shared objects: what the manager decided about each set, counter and dict, in order.
 *
 * Judges S4 (a request has its effect once, whatever was asked again), S16 (a life loads what was stored) and S21
 * (versions of a dict are given one by one, an addition is of what was not there). `Ledger` keeps its decisions in the same
 * log as those about tasks, so that both go back together to what was stored.
 */
import type { Objects } from "../model/Objects.ts"
import type { Violated } from "./Ledger.ts"

/** Who asked: the session and number of the request, and which of the engine's runs this was. */
export interface Asker {
  readonly request: string
  readonly run: number
}

interface Base {
  readonly object: number
  /** Undefined for what nobody asked for. */
  readonly by: Asker | undefined
}

/** `key` of a set is its fingerprint as text. */
export type ObjectDecision = Base &
  (
    | { readonly what: "made"; readonly kind: "set" | "counter" | "dict"; readonly name: string }
    | { readonly what: "added" | "removed"; readonly key: string; readonly fingerprint: Uint32Array }
    | { readonly what: "counted"; readonly value: number }
    | {
        readonly what: "written"
        readonly key: string
        /** Undefined: deleted. */
        readonly value: Uint8Array | undefined
        readonly version: number
      }
  )

type Known =
  | { readonly kind: "set"; readonly name: string; readonly keys: Map<string, Uint32Array> }
  | { readonly kind: "counter"; readonly name: string; value: number }
  | {
      readonly kind: "dict"
      readonly name: string
      version: number
      readonly entries: Map<string, { readonly value: Uint8Array; readonly version: number }>
    }

export class ObjectLedger {
  readonly objects: Array<Known> = []
  /** Which run of a request has had its effect. */
  readonly #done = new Map<string, number>()
  readonly #say: Violated

  constructor(say: Violated) {
    this.#say = say
  }

  clear(): void {
    this.objects.length = 0
    this.#done.clear()
  }

  judge(d: ObjectDecision): void {
    if (d.by !== undefined) {
      const before = this.#done.get(d.by.request)
      if (before !== undefined && before !== d.by.run) {
        this.#say("S4", `request ${d.by.request} changed object ${d.object} and had been done before`)
      }
      this.#done.set(d.by.request, d.by.run)
    }
    if (d.what === "made") {
      if (this.objects[d.object] !== undefined) this.#say("S21", `object ${d.object} was made twice`)
      this.objects[d.object] =
        d.kind === "set"
          ? { kind: "set", name: d.name, keys: new Map() }
          : d.kind === "counter"
            ? { kind: "counter", name: d.name, value: 0 }
            : { kind: "dict", name: d.name, version: 0, entries: new Map() }
      return
    }
    const object = this.objects[d.object]
    if (object?.kind === "set" && (d.what === "added" || d.what === "removed")) {
      const there = object.keys.has(d.key)
      if (there !== (d.what === "removed")) this.#say("S21", `set ${object.name}: ${d.what} and was ${there}`)
      if (d.what === "added") object.keys.set(d.key, d.fingerprint)
      else object.keys.delete(d.key)
    } else if (object?.kind === "counter" && d.what === "counted") object.value = d.value
    else if (object?.kind === "dict" && d.what === "written") {
      if (d.version !== object.version + 1) {
        this.#say("S21", `dict ${object.name}: version ${d.version} was given after version ${object.version}`)
      }
      object.version = d.version
      if (d.value !== undefined) object.entries.set(d.key, { value: d.value, version: d.version })
      else if (!object.entries.delete(d.key))
        this.#say("S21", `dict ${object.name}: ${d.key} was deleted and not there`)
    } else this.#say("S21", `object ${d.object} was ${d.what} and is ${object?.kind ?? "not there"}`)
  }

  /** S16: what a life has loaded is what the one before it had stored. */
  restored(loaded: Objects): void {
    const differs = (name: string, why: string): void => this.#say("S16", `object ${name} was loaded with ${why}`)
    if (loaded.all.length !== this.objects.length) {
      this.#say("S16", `${this.objects.length} shared objects were stored, ${loaded.all.length} loaded`)
    }
    for (const [id, known] of this.objects.entries()) {
      const { name } = known
      const object = loaded.all[id]
      if (object?.name !== name) differs(name, "another name")
      else if (known.kind === "set" && object.kind === "set") {
        if (object.size !== known.keys.size) differs(name, `${object.size} keys, not ${known.keys.size}`)
        for (const fingerprint of known.keys.values()) if (!object.table.has(fingerprint)) differs(name, "a key less")
      } else if (known.kind === "counter" && object.kind === "counter") {
        if (object.value !== known.value) differs(name, `${object.value}, not ${known.value}`)
      } else if (known.kind === "dict" && object.kind === "dict") {
        if (object.size !== known.entries.size) differs(name, `${object.size} entries, not ${known.entries.size}`)
        if (object.version !== known.version) differs(name, `version ${object.version}, not ${known.version}`)
        for (const [key, { value, version }] of known.entries) {
          const entry = object.get(key)
          if (entry?.version !== version || !equal(entry.value, value)) differs(name, `another entry of ${key}`)
        }
      } else differs(name, `kind ${object.kind}, not ${known.kind}`)
    }
  }
}

export const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i])
