/**
 * The join string: the one line that a manager on a network prints, and all but the secret that a program elsewhere needs.
 *
 *     millrace://NAME@HOST:PORT/?sha256=FINGERPRINT
 *
 * NAME is the credential, FINGERPRINT the SHA-256 of the manager's certificate. It holds no secret; the key goes another
 * way (a file, the environment). Whoever can change the line on its way can send programs to a manager of their own, which
 * then has no proof of the key: the login fails, and no task is lost to it.
 */

import { isFingerprint } from "./Certificate.ts"
import { isName } from "./Credentials.ts"

export interface Join {
  readonly user: string
  readonly host: string
  readonly port: number
  readonly fingerprint: string
}

export type DecodedJoin =
  | { readonly _tag: "Decoded"; readonly join: Join }
  | { readonly _tag: "Refused"; readonly value: string; readonly remedy: string }

export const encodeJoin = ({ fingerprint, host, port, user }: Join): string =>
  `millrace://${user}@${host.includes(":") ? `[${host}]` : host}:${port}/?sha256=${fingerprint}`

const pattern =
  /^millrace:\/\/([^@/?#\s]{1,200})@(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):(\d{1,5})\/\?sha256=(\S{1,100})$/

const remedy =
  "use the whole line that millrace serve --network prints, millrace://NAME@HOST:PORT/?sha256=..., in quotes"

export const decodeJoin = (text: string): DecodedJoin => {
  const refused = (value: string): DecodedJoin => ({ _tag: "Refused", value, remedy })
  const [, user, host, port, fingerprint] = pattern.exec(text.trim()) ?? []
  if (user === undefined || host === undefined || port === undefined || fingerprint === undefined) {
    return refused("no join string")
  }
  if (!isName(user)) return refused("a join string with a name that no credential can have")
  if (Number(port) < 1 || Number(port) > 65_535) return refused(`a join string with port ${port}`)
  if (!isFingerprint(fingerprint)) return refused("a join string whose fingerprint is not 64 hexadecimal digits")
  return {
    _tag: "Decoded",
    join: { user, host: host.replace(/[[\]]/g, ""), port: Number(port), fingerprint: fingerprint.toLowerCase() }
  }
}
