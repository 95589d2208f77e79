/** Names of shared objects: checked where a program defines them, once. */
import { DefinitionInvalid } from "../Errors.ts"
import { isName } from "../wire/pieces.ts"

/** The name itself. Throws `DefinitionInvalid`: a mistake in a definition is a mistake in the program. */
export const checkName = (name: string): string => {
  if (isName.test(name)) return name
  throw new DefinitionInvalid({
    queue: name,
    field: "name",
    value: JSON.stringify(name),
    remedy: "use 1 to 200 characters of A-Z a-z 0-9 . _ : -"
  })
}
