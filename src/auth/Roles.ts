/**
 * What a credential may do: roles with name patterns, and one table of action x role.
 *
 * Deny by default: an action is permitted when one grant of the credential has a role that the table names for it and a
 * pattern that fits the name of the queue or shared object. A credential without grants (the plain shared key) may do
 * everything. Grants only add up; none takes away. Pure: who asks, and what lies behind a number, is the manager's to say.
 */
import { grantsMax, nameCharsMax, namePatternsMax } from "../Limits.ts"
import { printable } from "./Credentials.ts"

export const roles = ["producer", "worker", "observer", "admin"] as const
export type Role = (typeof roles)[number]

export interface Grant {
  readonly role: Role
  /** Exact names of queues, or prefixes with a trailing `*`. Default: none. */
  readonly queues?: ReadonlyArray<string> | undefined
  /** The same for shared objects. */
  readonly objects?: ReadonlyArray<string> | undefined
}

/** What can be done to a queue. `lease` is all that a lease allows, from taking it to its end. */
const queueTable = {
  open: ["producer", "worker", "observer", "admin"],
  /** Making the queue, by an `open` with a policy. */
  declare: ["producer", "worker", "admin"],
  put: ["producer", "admin"],
  outcomes: ["producer", "admin"],
  /** Telling a task what its handler waits for. */
  signal: ["producer", "worker", "admin"],
  /** Which task has a dedupe id, and where it stands. */
  find: ["producer", "worker", "observer", "admin"],
  join: ["producer", "admin"],
  lease: ["worker", "admin"],
  /** Being the queue that a commit puts a child on. */
  child: ["producer", "worker", "admin"],
  stats: ["observer", "admin"],
  explain: ["observer", "admin"],
  browse: ["observer", "admin"],
  /** Payloads and checkpoints of tasks that are not leased: in a browse, a peek, a list of repeats. */
  payloads: ["admin"],
  repeats: ["observer", "admin"],
  repeat: ["admin"],
  cancel: ["admin"],
  pause: ["admin"],
  purge: ["admin"],
  redrive: ["admin"],
  close: ["admin"],
  lane: ["admin"]
} as const satisfies Readonly<Record<string, ReadonlyArray<Role>>>

/** What can be done to a shared object; `use` is to read and to write it, with a commit too. */
const objectTable = {
  open: ["producer", "worker", "admin"],
  make: ["producer", "worker", "admin"],
  use: ["producer", "worker", "admin"]
} as const satisfies Readonly<Record<string, ReadonlyArray<Role>>>

export type QueueAction = keyof typeof queueTable
export type ObjectAction = keyof typeof objectTable

export const queueActions = Object.keys(queueTable) as ReadonlyArray<QueueAction>
export const objectActions = Object.keys(objectTable) as ReadonlyArray<ObjectAction>

/** Sets of actions are bits of one integer. */
const bitsOf = <A extends string>(actions: ReadonlyArray<A>): Readonly<Record<A, number>> =>
  Object.fromEntries(actions.map((action, i) => [action, 1 << i])) as Record<A, number>

export const QueueBit = bitsOf(queueActions)
export const ObjectBit = bitsOf(objectActions)

export const rolesForQueue = (action: QueueAction): ReadonlyArray<Role> => queueTable[action]
export const rolesForObject = (action: ObjectAction): ReadonlyArray<Role> => objectTable[action]

const maskOf = (
  table: Readonly<Record<string, ReadonlyArray<Role>>>,
  bits: Readonly<Record<string, number>>,
  role: Role
): number =>
  Object.entries(table).reduce((mask, [action, who]) => (who.includes(role) ? mask | bits[action]! : mask), 0)

const queueMasks = new Map(roles.map((role) => [role, maskOf(queueTable, QueueBit, role)]))
const objectMasks = new Map(roles.map((role) => [role, maskOf(objectTable, ObjectBit, role)]))

// ---- patterns

const patternText = new RegExp(`^(?:[A-Za-z0-9._:-]{1,${nameCharsMax}}|[A-Za-z0-9._:-]{0,${nameCharsMax - 1}}\\*)$`)

/** An exact name, or a prefix and `*`. There are no other wildcards: a match is one comparison. */
export const isPattern = (text: string): boolean => patternText.test(text)

/** Assumes: `isPattern(pattern)`. */
export const patternFits = (pattern: string, name: string): boolean =>
  pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern

const fits = (patterns: ReadonlyArray<string> | undefined, name: string): boolean =>
  patterns?.some((pattern) => patternFits(pattern, name)) === true

/** Bits of what these grants permit on the queue of that name; 0: it is not there for them. */
export const queuePermissions = (grants: ReadonlyArray<Grant>, name: string): number =>
  grants.reduce((mask, { queues, role }) => (fits(queues, name) ? mask | queueMasks.get(role)! : mask), 0)

export const objectPermissions = (grants: ReadonlyArray<Grant>, name: string): number =>
  grants.reduce((mask, { objects, role }) => (fits(objects, name) ? mask | objectMasks.get(role)! : mask), 0)

/** Whether nothing needs to be looked at: one grant is admin of every queue and object. */
export const permitsEverything = (grants: ReadonlyArray<Grant> | undefined): boolean =>
  grants === undefined ||
  grants.some(
    ({ objects, queues, role }) => role === "admin" && queues?.includes("*") === true && objects?.includes("*") === true
  )

// ---- what people write

/** Why grants cannot be used: a field, its value as printable ASCII, what to do. */
export interface GrantsFault {
  readonly field: string
  readonly value: string
  readonly remedy: string
}

export type DecodedGrants =
  | { readonly _tag: "Decoded"; readonly grants: ReadonlyArray<Grant> }
  | { readonly _tag: "Refused"; readonly fault: GrantsFault }

/** Grants out of data of unknown shape. Everything that is not understood is refused, never passed over. */
export const decodeGrants = (input: unknown): DecodedGrants => {
  if (!Array.isArray(input)) return refused("roles", shown(input), `give a list, such as ${example}`)
  if (input.length === 0) return refused("roles", "an empty list", `a credential needs a role, such as ${example}`)
  if (input.length > grantsMax) return refused("roles", `${input.length} grants`, `use at most ${grantsMax}`)
  const grants: Array<Grant> = []
  for (const [i, item] of input.entries()) {
    const field = `roles[${i}]`
    if (typeof item !== "object" || item === null || Array.isArray(item)) {
      return refused(field, shown(item), `give a role with its names, such as ${example}`)
    }
    const unknown = Object.keys(item).find((name) => !fields.includes(name))
    if (unknown !== undefined) return refused(`${field}.${printable(unknown)}`, "unknown", `use ${fields.join(", ")}`)
    const { objects, queues, role } = item as Record<string, unknown>
    if (!isRole(role)) return refused(`${field}.role`, shown(role), `use ${roles.join(", ")}`)
    const fault = patternsFault(`${field}.queues`, queues) ?? patternsFault(`${field}.objects`, objects)
    if (fault !== undefined) return { _tag: "Refused", fault }
    const grant = { role, queues: copied(queues), objects: copied(objects) }
    if (grant.queues.length + grant.objects.length === 0) {
      return refused(field, "without a name", `name what the ${role} may use: queues or objects, "*" for all`)
    }
    if (grant.objects.length > 0 && objectMasks.get(role) === 0) {
      return refused(`${field}.objects`, shown(grant.objects[0]), `leave it out: the ${role} has no shared objects`)
    }
    grants.push(grant)
  }
  return { _tag: "Decoded", grants }
}

const example = '[{"role":"worker","queues":["images*"]}]'
const fields = ["role", "queues", "objects"]

const isRole = (value: unknown): value is Role => roles.includes(value as Role)

const copied = (patterns: unknown): ReadonlyArray<string> => (patterns === undefined ? [] : [...(patterns as [])])

const patternsFault = (field: string, patterns: unknown): GrantsFault | undefined => {
  if (patterns === undefined) return undefined
  if (!Array.isArray(patterns))
    return { field, value: shown(patterns), remedy: 'give a list of names, such as ["images*"]' }
  if (patterns.length > namePatternsMax) {
    return { field, value: `${patterns.length} names`, remedy: `use at most ${namePatternsMax}, or a prefix with *` }
  }
  const wrong = patterns.find((pattern) => typeof pattern !== "string" || !isPattern(pattern))
  if (wrong === undefined && !patterns.includes(undefined)) return undefined
  const remedy = `use 1 to ${nameCharsMax} characters of A-Z a-z 0-9 . _ : -, with a * only at the end`
  return { field, value: shown(wrong), remedy }
}

const shown = (value: unknown): string =>
  typeof value === "string" ? `"${printable(value)}"` : value === undefined ? "missing" : `a ${kindOf(value)}`

const kindOf = (value: unknown): string => (value === null ? "null" : Array.isArray(value) ? "list" : typeof value)

const refused = (field: string, value: string, remedy: string): DecodedGrants => ({
  _tag: "Refused",
  fault: { field, value, remedy }
})
