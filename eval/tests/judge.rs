fn main() {
    codelsi_eval::sandbox::child_entry();
}
