use super::*;

/// Letters and digits of a secret, from a seed: joined at run time, so that secret scanners find nothing in this file.
fn chars(alphabet: &str, n: usize) -> String {
    let alphabet: Vec<char> = alphabet.chars().collect();
    let mut state = n as u64 + 88_172_645_463_325_252;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        alphabet[(state % alphabet.len() as u64) as usize]
    };
    (0..n).map(|_| next()).collect()
}

const HEX: &str = "0123456789abcdef";
const LOWER: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The text of an example: `{hex32}` and the like become that many characters.
fn filled(form: &str) -> String {
    let mut text = String::new();
    let mut rest = form;
    while let Some((before, after)) = rest.split_once("{{") {
        let (hole, after) = after.split_once("}}").expect("a closed hole");
        let (kind, n) = hole.split_at(hole.find(|c: char| c.is_ascii_digit()).expect("a number"));
        let n = n.parse().expect("a number");
        text += before;
        text += &match kind {
            "hex" => chars(HEX, n),
            "lower" => chars(LOWER, n),
            "upper" => chars(UPPER, n),
            "digit" => chars("123456789", n),
            _ => chars(ALL, n),
        };
        rest = after;
    }
    text + rest
}

/// For each rule a secret, and a text of nearly its form that is none.
const EXAMPLES: &[(&str, &str, &str)] = &[
    ("aws-access-key-id", "id = 'AKIA{{upper16}}'", "id = 'AKIAIOSFODNN7EXAMPLE'"),
    ("aws-secret-access-key", "AWS_SECRET_ACCESS_KEY={{all40}}\n", "aws_access_key_id = process.env.AWS_KEY"),
    ("aws-session-token", "aws_session_token = \"{{all160}}\"", "aws_session_token = await sts.token()"),
    ("aws-secret-key-by-name", "secretAccessKey: '{{all40}}',", "secretAccessKey: config.secretAccessKey,"),
    ("gcp-api-key", "new Maps('AIza{{all35}}')", "new Maps('AIzaShort')"),
    (
        "gcp-service-account",
        "\"private_key_id\": \"{{hex40}}\"",
        "\"private_key_id\": \"0000000000000000000000000000000000000000\"",
    ),
    ("google-oauth-secret", "'GOCSPX-{{all28}}'", "'GOCSPX-'"),
    ("google-oauth-token", "'ya29.{{all60}}'", "'ya29.'"),
    (
        "azure-account-key",
        "DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={{all86}}==;EndpointSuffix=core.windows.net",
        "AccountKey={key};EndpointSuffix=core",
    ),
    (
        "azure-shared-access-key",
        "Endpoint=sb://a.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey={{all43}}=",
        "SharedAccessKey=<key>",
    ),
    ("azure-sas", "https://a.blob.core.windows.net/c?sv=2022&sig={{all43}}%3D", "https://a.test/c?sig=short"),
    ("azure-client-secret", "'{{all3}}8Q~{{all34}}'", "'a8Q~b'"),
    ("azure-devops-token", "'{{all76}}AZDO{{all4}}'", "'AZDO'"),
    ("alibaba-access-key-id", "'LTAI{{all20}}'", "'LTAI'"),
    ("digitalocean-token", "'dop_v1_{{hex64}}'", "'dop_v1_'"),
    ("heroku-token", "'HRKU-{{all40}}'", "'HRKU-'"),
    (
        "heroku-key-by-name",
        "HEROKU_API_KEY={{hex8}}-{{hex4}}-{{hex4}}-{{hex4}}-{{hex12}}",
        "heroku_id = uuid()",
    ),
    ("cloudflare-origin-ca-key", "'v1.0-{{hex24}}-{{hex146}}'", "'v1.0-beta'"),
    ("cloudflare-key-by-name", "CLOUDFLARE_API_TOKEN={{all40}}", "CLOUDFLARE_API_TOKEN=${TOKEN}"),
    ("fly-token", "'fo1_{{all43}}'", "'fo1_'"),
    ("netlify-token", "'nfp_{{all36}}'", "'nfp_x'"),
    ("supabase-key", "'sbp_{{hex40}}'", "'sbp_'"),
    ("planetscale-token", "'pscale_tkn_{{all43}}'", "'pscale_tkn_'"),
    ("databricks-token", "'dapi{{hex32}}'", "'dapi'"),
    ("pulumi-token", "'pul-{{hex40}}'", "'pul-'"),
    ("terraform-token", "'{{all14}}.atlasv1.{{all67}}'", "'.atlasv1.'"),
    ("vault-token", "'hvs.{{all95}}'", "'hvs.x'"),
    ("doppler-token", "'dp.pt.{{all43}}'", "dp.pt.length"),
    ("1password-token", "'ops_eyJ{{all250}}'", "'ops_eyJ'"),
    ("github-token", "'ghp_{{all36}}'", "'ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'"),
    ("github-fine-grained-token", "'github_pat_{{all82}}'", "'github_pat_'"),
    ("gitlab-token", "'glpat-{{all20}}'", "'glpat-'"),
    ("gitlab-runner-token", "'GR1348941{{all20}}'", "'GR1348941'"),
    ("atlassian-token", "'ATATT3{{all180}}'", "'ATATT3'"),
    ("npm-token", "'npm_{{all36}}'", "npm_config_registry"),
    (
        "npmrc-token",
        "//registry.npmjs.org/:_authToken={{hex8}}-{{hex4}}-{{hex4}}-{{hex4}}-{{hex12}}",
        "_authToken=${NPM_TOKEN}",
    ),
    ("pypi-token", "'pypi-AgE{{all120}}'", "'pypi-AgE'"),
    ("rubygems-token", "'rubygems_{{hex48}}'", "rubygems_version"),
    ("crates-io-token", "'cio{{all32}}'", "'cio'"),
    ("docker-token", "'dckr_pat_{{all27}}'", "'dckr_pat_'"),
    ("artifactory-key", "'AKC{{all70}}'", "'AKC'"),
    ("sourcegraph-token", "'sgp_{{hex40}}'", "'sgp_'"),
    ("postman-key", "'PMAK-{{hex24}}-{{hex34}}'", "'PMAK-'"),
    ("slack-token", "'xoxb-{{digit12}}-{{digit12}}-{{all24}}'", "'xoxb-xxxxxxxxxxxxxx'"),
    (
        "slack-webhook",
        "https://hooks.slack.com/services/T{{upper8}}/B{{upper8}}/{{all24}}",
        "https://hooks.slack.com/services/",
    ),
    ("telegram-token", "https://api.telegram.org/bot{{digit10}}:AA{{all33}}/sendMessage", "12:AA"),
    ("discord-token", "'M{{all23}}.{{all6}}.{{all27}}'", "Module.create.build"),
    (
        "discord-webhook",
        "https://discord.com/api/webhooks/{{digit18}}/{{all68}}",
        "https://discord.com/api/webhooks/1/x",
    ),
    (
        "teams-webhook",
        "https://a.webhook.office.com/webhookb2/{{hex36}}@{{hex36}}/IncomingWebhook/{{hex32}}",
        "https://a.webhook.office.com/webhookb2/",
    ),
    (
        "zapier-webhook",
        "https://hooks.zapier.com/hooks/catch/{{digit7}}/{{lower7}}/",
        "https://hooks.zapier.com/hooks/",
    ),
    ("twilio-key", "'SK{{hex32}}'", "'SK00000000000000000000000000000000'"),
    ("twilio-auth-token", "TWILIO_AUTH_TOKEN={{hex32}}", "TWILIO_AUTH_TOKEN=''"),
    ("sendgrid-key", "'SG.{{all22}}.{{all43}}'", "SG.mail.send"),
    ("mailgun-key", "'key-{{hex32}}'", "'key-0'"),
    ("mailchimp-key", "'{{hex32}}-us12'", "'en-us12'"),
    ("brevo-key", "'xkeysib-{{hex64}}-{{all16}}'", "'xkeysib-'"),
    ("stripe-key", "'sk_live_{{all24}}'", "'sk_live_xxxxxxxxxxxxxxxxxxxxxxxx'"),
    ("stripe-webhook-secret", "'whsec_{{all32}}'", "'whsec_'"),
    ("shopify-token", "'shpat_{{hex32}}'", "'shpat_'"),
    ("square-token", "'sq0atp-{{all22}}'", "'sq0atp-'"),
    ("paypal-token", "'access_token$production${{lower16}}${{hex32}}'", "'access_token$'"),
    ("paypal-secret-by-name", "PAYPAL_CLIENT_SECRET={{all80}}", "paypalSecret = env.secret"),
    ("shippo-token", "'shippo_live_{{hex40}}'", "'shippo_live_'"),
    ("easypost-key", "'EZAK{{all54}}'", "'EZAK'"),
    ("duffel-token", "'duffel_live_{{all43}}'", "'duffel_live_'"),
    ("anthropic-key", "'sk-ant-api03-{{all95}}'", "'sk-ant-'"),
    ("openai-key", "'sk-proj-{{all48}}'", "'sk-spinner-three-bounce-wrapper'"),
    ("hugging-face-token", "'hf_{{all34}}'", "'hf_model'"),
    ("groq-key", "'gsk_{{all52}}'", "'gsk_'"),
    ("replicate-token", "'r8_{{all37}}'", "'r8_'"),
    ("xai-key", "'xai-{{all80}}'", "'xai-'"),
    ("perplexity-key", "'pplx-{{all48}}'", "'pplx-7b-online'"),
    ("datadog-key-by-name", "DD_API_KEY={{hex32}}", "DD_API_KEY=env"),
    ("new-relic-key", "'NRAK-{{upper27}}'", "'NRAK-'"),
    ("sentry-dsn", "https://{{hex32}}@o1.ingest.sentry.io/42", "https://user@host/42"),
    ("sentry-token", "'sntrys_{{all100}}'", "'sntrys_'"),
    ("grafana-token", "'glsa_{{all32}}_{{hex8}}'", "'glsa_'"),
    ("dynatrace-token", "'dt0c01.{{upper24}}.{{upper64}}'", "'dt0c01.'"),
    ("linear-key", "'lin_api_{{all40}}'", "'lin_api_'"),
    ("notion-token", "'ntn_{{all46}}'", "'ntn_'"),
    ("figma-token", "'figd_{{all40}}'", "fig_width"),
    ("airtable-token", "'pat{{all14}}.{{hex64}}'", "pattern.exec"),
    ("dropbox-token", "'sl.{{all140}}'", "sl.length"),
    ("facebook-token", "'EAA{{all120}}'", "'EAA'"),
    ("mapbox-token", "'pk.eyJ1{{all60}}.{{all22}}'", "'pk.eyJ1'"),
    ("contentful-token", "'CFPAT-{{all43}}'", "'CFPAT-'"),
    ("typeform-token", "'tfp_{{all59}}'", "'tfp_'"),
    ("okta-token", "OKTA_TOKEN=00{{all40}}", "OKTA_TOKEN=00"),
    ("service-key-by-name", "algoliaAdminKey: '{{hex32}}'", "algoliaAdminKey: 'your_algolia_key_12345'"),
    ("jwt", "'eyJ{{all20}}.eyJ{{all40}}.{{all43}}'", "'eyJ.eyJ.x'"),
    ("private-key", "-----BEGIN {{digit1}}RSA PRIVATE KEY-----", "-----BEGIN PUBLIC KEY-----"),
    ("putty-private-key", "PuTTY-User-Key-File-{{digit1}}: ssh-ed25519", "PuTTY-User-Key-File"),
    ("age-secret-key", "AGE-SECRET-KEY-1{{upper58}}", "AGE-SECRET-KEY-"),
    ("authorization-header", "Authorization: 'Basic {{all24}}=='", "Authorization: `Bearer ${token}`"),
    (
        "url-credentials",
        "postgres://admin:hunter{{digit2}}@db.internal/app",
        "postgres://admin:password@localhost/app",
    ),
    (
        "url-query-password",
        "jdbc:mysql://db/app?user=root&password=tr{{digit2}}",
        "https://a.b/?user=root&password=${password}",
    ),
    ("url-query-token", "https://a.b/hook?token={{all32}}", "https://a.b/hook?token=your_token_here_0123456"),
    (
        "connection-string",
        "Server=tcp:db,1433;Database=app;User Id=sa;Password=Hunter{{digit2}}!;",
        "Server=db;User Id=sa;Password={password};",
    ),
    ("connection-string-password-first", "Pwd='s{{digit3}}x';Server=db;", "Password=<password>;Server=db"),
    (
        "connection-words",
        "host=db user=app password=tr{{digit2}} dbname=shop",
        "host=db user=app password=$PASSWORD",
    ),
    ("connection-words-password-first", "password=tr{{digit2}} host=db", "password=${p} host=db"),
    ("password-by-name", "pwd: 'Tr0ub{{digit2}}dor&3'", "password: 'correct horse battery staple'"),
    ("secret-by-name", "apiKey: '{{lower20}}'", "apiKey: 'your-api-key-here-123'"),
    ("email-address", "jane.doe{{digit1}}@company.io", "jane.doe@example.com"),
];

#[test]
fn every_rule_has_a_secret_and_a_text_that_is_none() {
    let ids: Vec<&str> = OWN.rules.iter().map(|rule| rule.id.as_str()).collect();
    let examples: Vec<&str> = EXAMPLES.iter().map(|(id, _, _)| *id).collect();
    assert_eq!(ids, examples, "rules and examples, in the same order");
    for (id, secret, none) in EXAMPLES {
        let text = filled(secret);
        let rule = OWN.rules.iter().find(|rule| rule.id == *id).expect("it is in the list");
        assert!(rule.find("a.ts", text.as_bytes(), &OWN.allow).is_some(), "{id}: {text}");
        assert!(SecretRules::default().find("a.ts", &text).is_some(), "{id} has a keyword in {text}");
        assert!(SecretRules::default().find("a.ts", none).is_none(), "{id}: {none}");
    }
}

#[test]
fn a_secret_is_found_in_the_code_around_it() {
    for secret in [
        "const db = 'postgres://admin:hunter{{digit2}}@db.internal/app';",
        "redis://:p{{all12}}@cache:6379",
        "mongodb+srv://app:{{all14}}@cluster0.mongodb.net/?retryWrites=true",
        "const DB_PASSWORD = \"qL{{digit1}}#vR2x!mZ7pT\"",
        "let t: string; const token: string = `{{hex16}}`;",
        "connect(\"Data Source=db;Initial Catalog=shop;User ID=app;Password=pa55{{lower4}}\")",
        "connect(\"Server=db;Uid=app;Pwd='x{{lower6}}';\")",
    ] {
        let text = filled(secret);
        assert!(SecretRules::default().find("a.ts", &text).is_some(), "{text}");
    }
}

#[test]
fn code_about_secrets_holds_none() {
    for code in [
        "const token = await getToken(user.password);",
        "const password = 'correct horse battery staple';",
        "apiKey: 'your-api-key-here-123'",
        "const secret = process.env.CLIENT_SECRET ?? '';",
        "sendMail('user@example.com', 'a@b.test');",
        "import x from 'pkg@1.2.3'; @Injectable() class A {}",
        "const url = `https://${user}:${password}@host/`;",
        "const tokenType = 'application/json';",
        "const hash = 'd41d8cd98f00b204e9800998ecf8427e';",
        "if (key === 'ArrowDown' || token === 'identifier') return;",
        "user = a.user; password = a.password;",
        "this.host = options.host; this.password = options.password;",
        "`Server=${host};Database=${db};User Id=${user};Password=${password};`",
        "className=\"sk-folding-cube sk-cube-grid-wrapper\"",
        "<input type=\"password\" name=\"password\" user={user} password={password} />",
        "const pwd = 'utf8-md5-sha256';",
    ] {
        let found = SecretRules::default().find("a.ts", code);
        assert!(found.is_none(), "{code}: {found:?}");
    }
}

#[test]
fn a_file_adds_rules_to_our_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.toml");
    std::fs::write(&path, "[[rules]]\nid = 'acme'\nregex = 'ACME-[0-9]{6}'\nkeywords = ['acme']\n").unwrap();
    let rules = SecretRules::open(Some(&path)).unwrap();
    assert_eq!(rules.find("a.ts", "x = 'ACME-123456'").unwrap().rule, "acme");
    assert_eq!(rules.find("a.ts", &filled("'ghp_{{all36}}'")).unwrap().rule, "github-token");
    assert!(SecretRules::default().find("a.ts", "x = 'ACME-123456'").is_none());
}
