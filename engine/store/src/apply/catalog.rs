//! What is configured or remembered by name: plans, the registry, repositories, watches, the cache, reports.

use super::{Applied, Tx, stale};
use crate::{
    db::Arg,
    write::{
        CachePut, CacheRecord, CacheReplace, NoteRepo, PutPlan, PutRegistry, PutRepo, PutWatch, RemoveNamed, Report,
        ReportDone, ReportRetry, SetMeta, SetPaused,
    },
};

/// Remembers an output under its content key; the first writer wins.
pub async fn cache_put(tx: &mut Tx<'_>, put: &CachePut) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO cache (project, scope, key, task, output, at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (project, scope, key) DO NOTHING",
            [
                (&put.project).into(),
                (&put.scope).into(),
                (&put.key).into(),
                Arg::show(&put.task),
                Arg::json(&put.output),
                put.at.into(),
            ],
        )
        .await?;
    Ok(())
}

/// Remembers an output in place of another whose bytes are gone.
pub async fn cache_replace(tx: &mut Tx<'_>, replace: &CacheReplace) -> Applied<()> {
    let put = &replace.put;
    tx.conn
        .execute(
            "INSERT INTO cache (project, scope, key, task, output, at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (project, scope, key) DO UPDATE SET task = excluded.task, output = excluded.output, \
             at = excluded.at WHERE cache.task = $7",
            [
                (&put.project).into(),
                (&put.scope).into(),
                (&put.key).into(),
                Arg::show(&put.task),
                Arg::json(&put.output),
                put.at.into(),
                (&replace.expected_task).into(),
            ],
        )
        .await?;
    Ok(())
}

/// Remembers how a content key was made up; a later record of the same task replaces it.
pub async fn cache_record(tx: &mut Tx<'_>, record: &CacheRecord) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO cache_records (task, project, workflow, step, key, parts, result, at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (task) DO UPDATE SET key = excluded.key, \
             parts = excluded.parts, result = excluded.result, at = excluded.at",
            [
                Arg::show(&record.task),
                (&record.project).into(),
                (&record.workflow).into(),
                (&record.task.step).into(),
                (&record.key).into(),
                Arg::json(&record.parts),
                record.result.as_str().into(),
                record.at.into(),
            ],
        )
        .await?;
    Ok(())
}

/// Keeps a compiled workflow.
pub async fn put_plan(tx: &mut Tx<'_>, plan: &PutPlan) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO plans (project, plan_digest, source_digest, name, yaml, compiled, at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (project, plan_digest) DO NOTHING",
            [
                (&plan.project).into(),
                plan.plan_digest.as_str().into(),
                plan.source_digest.as_str().into(),
                (&plan.name).into(),
                (&plan.yaml).into(),
                Arg::json(&plan.compiled),
                plan.at.into(),
            ],
        )
        .await?;
    Ok(())
}

/// Adds the next revision of a registry. Two writers of one revision meet at the primary key.
pub async fn put_registry(tx: &mut Tx<'_>, registry: &PutRegistry) -> Applied<()> {
    let added = tx
        .conn
        .execute(
            "INSERT INTO registry (project, revision, body, at) SELECT $1, $2, $3, $4 \
             WHERE $2 = (SELECT coalesce(max(revision), 0) + 1 FROM registry WHERE project = $1) \
             ON CONFLICT (project, revision) DO NOTHING",
            [(&registry.project).into(), registry.revision.into(), Arg::json(&registry.body), registry.at.into()],
        )
        .await?;
    if added == 0 {
        return Err(stale(format!("{} is not the next revision of the registry", registry.revision)));
    }
    Ok(())
}

/// Pauses or resumes a workflow.
pub async fn set_paused(tx: &mut Tx<'_>, set: &SetPaused) -> Applied<()> {
    if set.paused {
        tx.conn
            .execute(
                "INSERT INTO paused (project, workflow, at) VALUES ($1, $2, $3) \
                 ON CONFLICT (project, workflow) DO NOTHING",
                [(&set.project).into(), (&set.workflow).into(), set.at.into()],
            )
            .await?;
    } else {
        tx.conn
            .execute(
                "DELETE FROM paused WHERE project = $1 AND workflow = $2",
                [(&set.project).into(), (&set.workflow).into()],
            )
            .await?;
    }
    Ok(())
}

/// Binds a repository, or replaces what is known of it.
pub async fn put_repo(tx: &mut Tx<'_>, repo: &PutRepo) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO repos (project, name, url, default_branch, hook, reason, secret, poll_ms, access) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (project, name) DO UPDATE SET url = excluded.url, \
             default_branch = excluded.default_branch, hook = excluded.hook, reason = excluded.reason, \
             secret = excluded.secret, poll_ms = excluded.poll_ms, access = excluded.access",
            [
                (&repo.project).into(),
                (&repo.name).into(),
                (&repo.url).into(),
                (&repo.default_branch).into(),
                repo.hook.into(),
                (&repo.reason).into(),
                (&repo.secret).into(),
                Arg::Int(repo.poll_ms.map(|ms| ms as i64)),
                Arg::json(&repo.access),
            ],
        )
        .await?;
    Ok(())
}

/// Notes what was learnt of a repository that is still bound.
pub async fn note_repo(tx: &mut Tx<'_>, note: &NoteRepo) -> Applied<()> {
    tx.conn
        .execute(
            "UPDATE repos SET reason = $4, default_branch = coalesce($5, default_branch) \
             WHERE project = $1 AND name = $2 AND url = $3",
            [
                (&note.project).into(),
                (&note.name).into(),
                (&note.url).into(),
                (&note.reason).into(),
                (&note.default_branch).into(),
            ],
        )
        .await?;
    Ok(())
}

/// Unbinds a repository.
pub async fn remove_repo(tx: &mut Tx<'_>, named: &RemoveNamed) -> Applied<()> {
    let key: [Arg; 2] = [(&named.project).into(), (&named.name).into()];
    tx.conn.execute("DELETE FROM repos WHERE project = $1 AND name = $2", key).await?;
    Ok(())
}

/// Watches a path, or replaces the watcher's state.
pub async fn put_watch(tx: &mut Tx<'_>, watch: &PutWatch) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO watches (project, name, path, settle_ms, state) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (project, name) DO UPDATE SET path = excluded.path, settle_ms = excluded.settle_ms, \
             state = excluded.state",
            [
                (&watch.project).into(),
                (&watch.name).into(),
                (&watch.path).into(),
                watch.settle_ms.into(),
                Arg::json(&watch.state),
            ],
        )
        .await?;
    Ok(())
}

/// Stops watching.
pub async fn remove_watch(tx: &mut Tx<'_>, named: &RemoveNamed) -> Applied<()> {
    let key: [Arg; 2] = [(&named.project).into(), (&named.name).into()];
    tx.conn.execute("DELETE FROM watches WHERE project = $1 AND name = $2", key).await?;
    Ok(())
}

/// Leaves a report; a later one of the same run replaces it and begins anew.
pub async fn report(tx: &mut Tx<'_>, report: &Report) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO reports (run, project, due_at, body, attempts, reason) VALUES ($1, $2, $3, $4, 0, NULL) \
             ON CONFLICT (run) DO UPDATE SET due_at = excluded.due_at, body = excluded.body, attempts = 0, \
             reason = NULL",
            [Arg::show(report.run), (&report.project).into(), report.due_at.into(), Arg::json(&report.body)],
        )
        .await?;
    Ok(())
}

/// The report was delivered.
pub async fn report_done(tx: &mut Tx<'_>, done: ReportDone) -> Applied<()> {
    let read: [Arg; 2] = [Arg::show(done.run), done.due_at.into()];
    tx.conn.execute("DELETE FROM reports WHERE run = $1 AND due_at = $2", read).await?;
    Ok(())
}

/// The report could not be delivered.
pub async fn report_retry(tx: &mut Tx<'_>, retry: &ReportRetry) -> Applied<()> {
    tx.conn
        .execute(
            "UPDATE reports SET due_at = $2, reason = $3, attempts = attempts + 1 WHERE run = $1",
            [Arg::show(retry.run), retry.due_at.into(), (&retry.reason).into()],
        )
        .await?;
    Ok(())
}

/// Sets a value of the whole installation.
pub async fn set_meta(tx: &mut Tx<'_>, set: &SetMeta) -> Applied<()> {
    tx.conn
        .execute(
            "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            [(&set.key).into(), (&set.value).into()],
        )
        .await?;
    Ok(())
}
