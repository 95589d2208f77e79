/** How a program says who it is: a credential name and its key. */
import * as Redacted from "effect/Redacted"

export interface Auth {
  /** Name of the credential, `[A-Za-z0-9._:-]{1,200}`. Default: `default`. */
  readonly user?: string | undefined
  /** The shared secret; text of any length up to 1,024 bytes. Prefer 32 random bytes in base64url. */
  readonly key: string | Redacted.Redacted<string>
}

export const userDefault = "default"

export const keyText = (auth: Auth): string => (typeof auth.key === "string" ? auth.key : Redacted.value(auth.key))
