/** How a program says who it is, and whom a manager lets in: a credential name, its key or verifier, its roles. */
import * as Redacted from "effect/Redacted"
import type { Grant } from "./Roles.ts"

export interface Auth {
  /** Name of the credential, `[A-Za-z0-9._:-]{1,200}`. Default: `default`. */
  readonly user?: string | undefined
  /** The shared secret; text of any length up to 1,024 bytes. Prefer 32 random bytes in base64url. */
  readonly key: string | Redacted.Redacted<string>
}

/** Who may log in at a manager, and what they may do. */
export type Credential = (
  | Auth
  | {
      readonly user?: string | undefined
      /** What a manager needs of the key, as `millrace key verifier` prints it. Nobody can log in with it. */
      readonly verifier: string
    }
) & {
  /** What it may do, by names of queues and shared objects. Left out: everything. */
  readonly roles?: ReadonlyArray<Grant> | undefined
}

export const userDefault = "default"

export const keyText = (auth: Auth): string => (typeof auth.key === "string" ? auth.key : Redacted.value(auth.key))
