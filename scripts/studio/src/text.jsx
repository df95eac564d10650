// The very file, for all that has no field of its own.

import * as studio from "./state.js";

const { useStudio } = studio;

export function TextEditor() {
  const board = useStudio((state) => state.board);
  const typed = useStudio((state) => state.text);
  const key = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      if (typed) studio.writeText();
    }
  };
  return (
    <div id="text">
      <label for="yaml" class="sr">Storyboard as YAML</label>
      <textarea id="yaml" spellcheck={false} value={typed?.text ?? board.text} onInput={(event) => studio.typeText(event.currentTarget.value)} onKeyDown={key} />
      <div class="row">
        {typed && (
          <>
            <button type="button" class="main" id="save" onClick={studio.writeText}>Save the text</button>
            <button type="button" id="revert" onClick={() => studio.set({ text: null })}>Back to the file</button>
          </>
        )}
        {typed && typed.version !== board.version && <span class="mistake">The file has changed since you began to type.</span>}
        <span class="hint">Every setting of a storyboard can be written here; comments stay.</span>
      </div>
    </div>
  );
}
