// The very file, for all that has no field of its own.

import { useState } from "preact/hooks";
import * as studio from "./state.js";

const { useStudio } = studio;

export function TextEditor() {
  const text = useStudio((state) => state.board.text);
  const [typed, type] = useState(null);
  const changed = typed !== null && typed !== text;
  const save = async () => {
    await studio.writeText(typed);
    if (studio.now().board.text === typed) type(null);
  };
  const key = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      if (changed) save();
    }
  };
  return (
    <div id="text">
      <label for="yaml" class="sr">Storyboard as YAML</label>
      <textarea id="yaml" spellcheck={false} value={typed ?? text} onInput={(event) => type(event.currentTarget.value)} onKeyDown={key} />
      <div class="row">
        {changed && (
          <>
            <button type="button" class="main" id="save" onClick={save}>Save the text</button>
            <button type="button" id="revert" onClick={() => type(null)}>Back to the file</button>
          </>
        )}
        <span class="hint">Every setting of a storyboard can be written here; comments stay.</span>
      </div>
    </div>
  );
}
