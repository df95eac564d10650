// The job type of `framepack-relax batch --emit flamenco`: put it into the manager's scripts folder.
// Each command renders a shot; who renders the last shot of a film makes the film. They may run in any order and again.
const JOB_TYPE = {
  label: "framepack-relax",
  settings: [
    { key: "folder", type: "string", required: true, subtype: "dir_path",
      description: "where the storyboards and the films lie, the same on every worker" },
    { key: "commands", type: "string", required: true, visible: "submission",
      description: "a JSON list of commands, each a list of words" },
  ],
};

function compileJob(job) {
  for (const words of JSON.parse(job.settings.commands)) {
    const task = author.Task(words.slice(2).join(" "), "misc");
    const line = 'cd "$1" && shift && exec "$@"';
    task.addCommand(author.Command("exec", { exe: "sh", args: ["-c", line, "sh", job.settings.folder, ...words] }));
    job.addTask(task);
  }
}
