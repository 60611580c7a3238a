//! EventService: subscriptions and webhooks.

use gureum_model::{Filters, PageRequest, Refusal, Tags, id::WebhookId, refusal::Violations};
use gureum_proto::gateway::v1::{self as proto, event_service_server::EventService};
use gureum_service::{Answer, Error, mutate, scope, wire};
use gureum_store::{Listed, Record, State, list, list::get_all};
use http::Uri;
use prost::Message;
use tonic::{Request, Response, Status};

use super::{DeadLetter, LogApi, Schema, Webhook, subscribe::SubscribeStream};

/// Webhooks of one scope. Each costs a task's work for every event of the log.
const MAX_WEBHOOKS: usize = 50;

#[tonic::async_trait]
impl EventService for LogApi {
    type SubscribeStream = SubscribeStream;

    async fn subscribe(&self, request: Request<proto::SubscribeRequest>) -> Result<Response<SubscribeStream>, Status> {
        Ok(Response::new(self.subscribe_to(scope(), request.into_inner())?))
    }

    async fn create_webhook(
        &self,
        request: Request<proto::CreateWebhookRequest>,
    ) -> Result<Response<proto::CreateWebhookResponse>, Status> {
        let (scope, request) = (scope(), request.into_inner());
        let webhook = Webhook {
            id: self.ids.next(),
            url: request.url.clone(),
            filter: request.filter.clone().unwrap_or_default().into(),
            secret: request.secret.clone(),
            created: gureum_model::Timestamp::EPOCH,
            delivered_to: 0,
            failed_attempts: 0,
            last_error: String::new(),
            tags: check(&request)?,
            scope: scope.clone(),
        };
        let created = mutate(&self.log.store, &scope, &request, move |transaction| {
            let prefix = format!("{}/", webhook.scope);
            if transaction.webhooks.scan(&prefix, None).count() >= MAX_WEBHOOKS {
                let text = format!("an account has at most {MAX_WEBHOOKS} webhooks in a region");
                return Err(Refusal::new(gureum_model::RefusalKind::Exhausted, "WebhookLimitExceeded", text));
            }
            // Events from now on, as for a new subscriber.
            let webhook = Webhook { created: transaction.now(), delivered_to: transaction.sequence(), ..webhook };
            let answer = proto::CreateWebhookResponse { webhook: Some(shown(&webhook, 0)) };
            let key = webhook.key();
            transaction.put(webhook);
            Ok(Answer::created::<Webhook>(answer, key))
        });
        Ok(Response::new(created.await?))
    }

    async fn describe_webhooks(
        &self,
        request: Request<proto::DescribeWebhooksRequest>,
    ) -> Result<Response<proto::DescribeWebhooksResponse>, Status> {
        let (scope, request) = (scope(), request.into_inner());
        Ok(Response::new(describe(&self.log.store.read(), &scope, request).map_err(Error::from)?))
    }

    async fn delete_webhook(
        &self,
        request: Request<proto::DeleteWebhookRequest>,
    ) -> Result<Response<proto::DeleteWebhookResponse>, Status> {
        let (scope, request) = (scope(), request.into_inner());
        let id = parse_id(&request.webhook_id)?;
        let key = Webhook::list_key(&scope, id);
        let deleted = mutate(&self.log.store, &scope, &request, move |transaction| {
            transaction.delete::<Webhook>(&key).ok_or_else(|| Refusal::not_found(id))?;
            let letters: Vec<String> = transaction.dead_letters.scan(&DeadLetter::prefix(id), None).map(|letter| letter.key()).collect();
            for letter in letters {
                transaction.delete::<DeadLetter>(&letter);
            }
            Ok(proto::DeleteWebhookResponse {})
        });
        Ok(Response::new(deleted.await?))
    }

    async fn describe_dead_letters(
        &self,
        request: Request<proto::DescribeDeadLettersRequest>,
    ) -> Result<Response<proto::DescribeDeadLettersResponse>, Status> {
        let (scope, request) = (scope(), request.into_inner());
        let id = parse_id(&request.webhook_id)?;
        let state = self.log.store.read();
        let known = get_all::<Webhook, _>(&state.webhooks, &scope, "webhook_ids", &[id]);
        known.map_err(|refusal| Error::from(refusal.of_field("webhook_id")))?;
        let page = PageRequest::new(request.page_size, &request.page_token, &("dead letters", &scope, id)).map_err(Error::from)?;
        let rows: Vec<_> = state.dead_letters.scan(&DeadLetter::prefix(id), page.after.as_deref()).take(page.size + 1).collect();
        let (rows, next_page_token) = page.cut(rows, |row| row.key());
        let dead_letters = rows.into_iter().map(|letter| proto::DeadLetter {
            event: proto::CloudEvent::decode(letter.event.as_slice()).ok(),
            time: Some(wire::timestamp(letter.time)),
            error: letter.error.clone(),
        });
        Ok(Response::new(proto::DescribeDeadLettersResponse { dead_letters: dead_letters.collect(), next_page_token }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<proto::RedriveDeadLettersRequest>,
    ) -> Result<Response<proto::RedriveDeadLettersResponse>, Status> {
        let (scope, request) = (scope(), request.into_inner());
        let id = parse_id(&request.webhook_id)?;
        let key = Webhook::list_key(&scope, id);
        let wanted = key.clone();
        let answer = mutate(&self.log.store, &scope, &request, move |transaction| {
            transaction.webhooks.get(&wanted).ok_or_else(|| Refusal::not_found(id))?;
            let letters: Vec<DeadLetter> =
                transaction.dead_letters.scan(&DeadLetter::prefix(id), None).map(|row| row.record.clone()).collect();
            let redriven = letters.len() as u32;
            for letter in letters {
                transaction.put(DeadLetter { redrive: true, ..letter });
            }
            Ok(proto::RedriveDeadLettersResponse { redriven })
        });
        let answer = answer.await?;
        self.deliveries.waker().wake([key]);
        Ok(Response::new(answer))
    }
}

fn check(request: &proto::CreateWebhookRequest) -> Result<Tags, Error> {
    let mut violations = Violations::new();
    let fits = request.url.parse::<Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if !fits {
        violations.add("url", format!("\"{}\" is no URL for a webhook: expected http://HOST/… or https://HOST/…", request.url));
    }
    let tags = violations.check("", Tags::from_user("tags", wire::tag_pairs(request.tags.clone())));
    violations.finish()?;
    Ok(tags.unwrap_or_default())
}

fn parse_id(text: &str) -> Result<WebhookId, Error> {
    Ok(text.parse::<WebhookId>().map_err(Refusal::from)?)
}

fn describe(
    state: &State<Schema>,
    scope: &gureum_model::Scope,
    request: proto::DescribeWebhooksRequest,
) -> Result<proto::DescribeWebhooksResponse, Refusal> {
    let mut violations = Violations::new();
    let ids: Vec<WebhookId> = violations.ids("webhook_ids", &request.webhook_ids);
    let filters = violations.check("", Filters::for_kind::<Webhook>(wire::filters(request.filters))).unwrap_or_default();
    violations.finish()?;
    let (rows, next_page_token) = if ids.is_empty() {
        let page = PageRequest::new(request.page_size, &request.page_token, &("webhooks", scope, &filters))?;
        list(&state.webhooks, scope, &filters, &page)
    } else {
        (get_all(&state.webhooks, scope, "webhook_ids", &ids)?, String::new())
    };
    let letters = |webhook: &Webhook| state.dead_letters.scan(&DeadLetter::prefix(webhook.id), None).count();
    let webhooks = rows.iter().filter(|row| filters.pass(&row.record)).map(|row| shown(row, letters(row) as u32)).collect();
    Ok(proto::DescribeWebhooksResponse { webhooks, next_page_token })
}

/// Without the secret, which is given once, by the user.
fn shown(webhook: &Webhook, dead_letters: u32) -> proto::Webhook {
    proto::Webhook {
        webhook_id: webhook.id.to_string(),
        url: webhook.url.clone(),
        filter: Some(webhook.filter.clone().into()),
        create_time: Some(wire::timestamp(webhook.created)),
        delivered_to_place: webhook.delivered_to,
        failed_attempts: webhook.failed_attempts,
        last_error: webhook.last_error.clone(),
        dead_letters,
        tags: wire::tags(&webhook.tags),
    }
}
