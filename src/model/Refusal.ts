/**
 * Why the manager refuses a request: a code of the protocol and the data that explains it.
 *
 * The list is closed; `docs/protocol.md` prints it, `Errors.ts` gives each a typed error at the client. Codes below 64
 * answer a request, definitely, and the connection goes on. Codes from 64 close the connection, and so may
 * `limitExceeded` and `draining`: what was in flight on a connection that closes is indefinite, whatever closed it.
 */
export const Code = {
  queueNotFound: 1,
  schemaMismatch: 2,
  payloadTooLarge: 3,
  full: 4,
  empty: 5,
  closed: 6,
  leaseLost: 7,
  alreadyEnded: 8,
  taskNotFound: 9,
  outcomesGap: 10,
  limitExceeded: 11,
  draining: 12,
  notPermitted: 13,
  definitionInvalid: 14,
  unsupported: 15,
  timedOut: 16,
  storeFull: 17,
  objectNotFound: 32,
  objectKindMismatch: 33,
  conflict: 34,
  counterOverflow: 35,
  durabilityMixed: 36,
  protocol: 64,
  authentication: 65,
  version: 66,
  handshakeTimeout: 67,
  tooManyConnections: 68,
  replaced: 69
} as const
export type Code = (typeof Code)[keyof typeof Code]

export interface Refusal {
  readonly code: Code
  /** A queue or limit name, a text; what it is depends on the code. */
  readonly subject: string
  readonly value: number
  readonly limit: number
}

export const refusal = (code: Code, subject: string, value = 0, limit = 0): Refusal => ({ code, subject, value, limit })
