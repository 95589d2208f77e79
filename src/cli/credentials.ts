/** A file of credentials, as `millrace serve` reads it and `millrace key` adds to it. */
import * as Effect from "effect/Effect"
import { decodeCredentials, encodeCredential, type FileCredential } from "../auth/CredentialsFile.ts"
import { ConfigurationInvalid } from "../Errors.ts"
import * as Limits from "../Limits.ts"
import { appendPrivateLine, type PrivateFileFault, readPrivateFile } from "../platform/PrivateFile.ts"

const { credentialsFileBytesMax } = Limits

/** The credentials of a file that is its owner's alone. Fails with the file, the line and a remedy. */
export const read = (file: string): Effect.Effect<ReadonlyArray<FileCredential>, ConfigurationInvalid> =>
  Effect.suspend(() => {
    const found = readPrivateFile(file, credentialsFileBytesMax)
    return found._tag === "Refused" ? Effect.fail(fileFault(file, found)) : decode(file, found.text)
  })

/** Adds a credential to a file; makes the file where there is none. Fails when its name is taken, and changes nothing. */
export const append = (file: string, credential: FileCredential): Effect.Effect<void, ConfigurationInvalid> =>
  Effect.suspend(() => {
    const line = encodeCredential(credential)
    const found = appendPrivateLine(file, credentialsFileBytesMax, (text) =>
      // What is there must be right, and be so with the new line.
      decodeCredentials(`${text}\n${line}`)._tag === "Decoded" ? line : undefined
    )
    if (found._tag === "Refused") return Effect.fail(fileFault(file, found))
    const { name } = credential.verifier
    return Effect.flatMap(decode(file, found.text), (credentials) => {
      if (!credentials.some(({ verifier }) => verifier.name === name)) return decode(file, `${found.text}\n${line}`)
      const remedy = `choose another name, or take its line out of ${file}`
      return Effect.fail(new ConfigurationInvalid({ field: "NAME", value: `"${name}", which the file has`, remedy }))
    })
  })

const decode = (file: string, text: string): Effect.Effect<ReadonlyArray<FileCredential>, ConfigurationInvalid> => {
  const decoded = decodeCredentials(text)
  if (decoded._tag === "Decoded") return Effect.succeed(decoded.credentials)
  const { field, line, remedy, value } = decoded.fault
  return Effect.fail(new ConfigurationInvalid({ field: `${file}, line ${line}: ${field}`, value, remedy }))
}

const fileFault = (file: string, { remedy, value }: PrivateFileFault): ConfigurationInvalid =>
  new ConfigurationInvalid({ field: `the file of credentials ${file}`, value, remedy })
