//! The page's script: how it keeps its connection.

use std::path::Path;

use crate::support::program::{command, run};
use crate::support::tools::has_node;

#[tokio::test]
async fn the_page_notices_a_dead_connection_and_comes_back_by_its_rule() {
    if !has_node() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = command("node");
    node.arg(root.join("tests/page/page_test.mjs")).arg(root.join("src/http/page.js"));
    let end = run(&mut node).await;
    assert_eq!(end.code, Some(0), "{}{}", end.stdout, end.stderr);
}
